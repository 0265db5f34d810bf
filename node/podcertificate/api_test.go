package podcertificate

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

// requestOn is a request of a node.
func requestOn(node types.NodeName, name string) *requestOf {
	r := &requestOf{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
	r.Spec.NodeName = node
	r.Spec.StubPKCS10Request = []byte("stub")
	return r
}

func TestRequestsOfTheNodeAreWatched(t *testing.T) {
	server := kubetest.Start(t)
	server.Put(requestOn("n", "a"))
	server.Put(requestOn("other", "b"))

	ctx, cancel := context.WithCancel(t.Context())
	seen, gone, done := make(chan *requestOf, 9), make(chan string, 9), make(chan struct{})
	go func() {
		defer close(done)
		Of(server.Client(), "n", slog.New(slog.DiscardHandler)).Watch(ctx,
			func(r *requestOf) { seen <- r },
			func(r *requestOf) { gone <- r.Name })
	}()

	if r := <-seen; r.Name != "a" || r.Spec.StubPKCS10Request != nil {
		t.Errorf("%v, want a without what is not needed", r)
	}

	// A chain that is too long is seen as too long, and is not kept.
	answered := requestOn("n", "a")
	answered.Status.CertificateChain = strings.Repeat("x", 2*maxChain)
	server.Put(answered)
	if r := <-seen; len(r.Status.CertificateChain) != maxChain+1 {
		t.Errorf("a chain of %d bytes", len(r.Status.CertificateChain))
	}

	server.Remove("podcertificaterequests", "ns", "b")
	server.Remove("podcertificaterequests", "ns", "a")
	if name := <-gone; name != "a" {
		t.Errorf("%s is gone, want a", name)
	}
	cancel()
	<-done
}

func TestARefusalThatMayBeTooEarlyIsNotTheLastWord(t *testing.T) {
	early := apierrors.NewInternalError(errors.New("while retrieving pod: not found"))
	for what, c := range map[string]struct {
		refusal *apierrors.StatusError
		times   int
		tries   int
		made    bool
	}{
		"the pod is not known yet":    {early, 2, 3, true},
		"the node may not":            {apierrors.NewForbidden(v1.Resource("x"), "", nil), -1, 9, false},
		"the request is no good":      {apierrors.NewBadRequest("no"), -1, 1, false},
		"there are no such resources": {apierrors.NewNotFound(v1.Resource("x"), ""), -1, 1, false},
	} {
		server := kubetest.Start(t)
		server.FailOn("create podcertificaterequests", c.times, c.refusal)
		requests := Of(server.Client(), "n", slog.New(slog.DiscardHandler))
		err := requests.Create(t.Context(), requestOn("n", "a"))

		made := kubetest.Get[requestOf](server, "podcertificaterequests", "ns", "a")
		if (err == nil) != c.made || (made != nil) != c.made || len(server.Calls()) != c.tries {
			t.Errorf("%s: %v after %d calls, want %d", what, err, len(server.Calls()), c.tries)
		}
	}
}

func TestTheUIDOfAServiceAccountIsRead(t *testing.T) {
	server := kubetest.Start(t)
	server.Put(&v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "default", UID: "u"}})
	requests := Of(server.Client(), "n", slog.New(slog.DiscardHandler))

	uid, err := requests.Account(t.Context(), "ns", "default")
	if uid != "u" || err != nil {
		t.Errorf("%s, %v", uid, err)
	}
	if _, err := requests.Account(t.Context(), "ns", "other"); !apierrors.IsNotFound(err) {
		t.Errorf("%v, want that it is not found", err)
	}
	if _, err := requests.Get(t.Context(), "ns", "none"); !apierrors.IsNotFound(err) {
		t.Errorf("%v, want that it is not found", err)
	}
}

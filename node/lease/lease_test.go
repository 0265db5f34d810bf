package lease_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/lease"
)

// renewed runs a renewer of a short lease until the test ends.
func renewed(t *testing.T, server *kubetest.Server) {
	t.Helper()
	r := lease.New(lease.Of(server.Client()), lease.Config{
		Node:     "n",
		Duration: time.Second,
		Owner:    func() *v1.Node { return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "u"}} },
		Log:      slog.New(slog.DiscardHandler),
	})

	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func stored(server *kubetest.Server) *coordinationv1.Lease {
	return kubetest.Get[coordinationv1.Lease](server, "leases", v1.NamespaceNodeLease, "n")
}

// await waits for a state of the Lease.
func await(t *testing.T, server *kubetest.Server, is func(*coordinationv1.Lease) bool) *coordinationv1.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range retry.Every(ctx, time.Millisecond) {
		if l := stored(server); l != nil && is(l) {
			return l
		}
	}
	t.Fatalf("the lease is %+v", stored(server))
	return nil
}

func there(*coordinationv1.Lease) bool { return true }

func TestALeaseIsMadeForTheNode(t *testing.T) {
	server := kubetest.Start(t)
	renewed(t, server)
	got := await(t, server, there)
	if *got.Spec.HolderIdentity != "n" || *got.Spec.LeaseDurationSeconds != 1 || got.Spec.RenewTime == nil {
		t.Errorf("spec %+v", got.Spec)
	}
	if len(got.OwnerReferences) != 1 || got.OwnerReferences[0].UID != "u" {
		t.Errorf("owners %v", got.OwnerReferences)
	}
}

func TestALeaseIsRenewedWithoutReadingItAgain(t *testing.T) {
	server := kubetest.Start(t)
	renewed(t, server)
	first := await(t, server, there)
	await(t, server, func(l *coordinationv1.Lease) bool {
		return l.Spec.RenewTime.After(first.Spec.RenewTime.Time)
	})
	reads := 0
	for _, call := range server.Calls() {
		if call == "get leases kube-node-lease/n" {
			reads++
		}
	}

	if reads != 1 {
		t.Errorf("read %d times", reads)
	}
}

func TestALeaseThatSomebodyChangedIsReadAgain(t *testing.T) {
	server := kubetest.Start(t)
	renewed(t, server)
	first := await(t, server, there)
	changed := first.DeepCopy()
	changed.Labels = map[string]string{"by": "somebody"}
	server.Put(changed)
	await(t, server, func(l *coordinationv1.Lease) bool {
		return l.Labels["by"] == "somebody" && l.Spec.RenewTime.After(first.Spec.RenewTime.Time)
	})
}

func TestALeaseThatSomebodyDeletedIsMadeAgain(t *testing.T) {
	server := kubetest.Start(t)
	renewed(t, server)
	first := await(t, server, there)
	server.Remove("leases", v1.NamespaceNodeLease, "n")
	await(t, server, func(l *coordinationv1.Lease) bool { return l.UID != first.UID })
}

func TestARenewalThatFailsIsRepeated(t *testing.T) {
	server := kubetest.Start(t)
	server.FailOn("create leases", 2, apierrors.NewServiceUnavailable("starting"))
	renewed(t, server)
	await(t, server, there)
	if made := slices.DeleteFunc(server.Calls(), func(call string) bool {
		return call != "create leases kube-node-lease"
	}); len(made) != 3 {
		t.Errorf("attempts %v", made)
	}
}

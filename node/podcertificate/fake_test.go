package podcertificate

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

type requestOf = certificatesv1.PodCertificateRequest

// cluster is an API server with a signer, whose events and logs are kept as well.
type cluster struct {
	t *testing.T

	// mu guards the rest.
	mu       sync.Mutex
	accounts map[string]types.UID
	requests map[string]*requestOf
	made     []*requestOf
	watches  int
	seen     func(*requestOf)
	gone     func(*requestOf)
	gets     int
	refused  error

	// sign answers a request when it is made; nil: nobody does. silent: the watch does not show it.
	sign   func(r *requestOf)
	silent bool

	// stop ends the keeper.
	stop func()

	events  []string
	changed []types.UID
	log     bytes.Buffer
}

func newCluster(t *testing.T) *cluster {
	return &cluster{
		t:        t,
		stop:     func() {},
		accounts: map[string]types.UID{"ns/default": "account-1"},
		requests: map[string]*requestOf{},
		sign:     func(r *requestOf) { issue(t, r, time.Hour, 40*time.Minute) },
	}
}

// run runs a keeper until the next one, or until the test ends.
func (c *cluster) run() *Keeper {
	c.stop()
	k := New(Config{
		API:    c,
		Node:   func() *v1.Node { return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "node-1"}} },
		Events: c,
		Changed: func(pod types.UID) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.changed = append(c.changed, pod)
		},
		Log: slog.New(slog.NewTextHandler(&c.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})

	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Run(ctx)
	}()

	c.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		synctest.Wait()
	})
	c.t.Cleanup(c.stop)
	return k
}

func (c *cluster) Account(_ context.Context, namespace, name string) (types.UID, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if uid, ok := c.accounts[namespace+"/"+name]; ok {
		return uid, nil
	}
	return "", apierrors.NewNotFound(v1.Resource("serviceaccounts"), name)
}

func (c *cluster) Create(_ context.Context, r *requestOf) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused != nil {
		return c.refused
	}

	r = r.DeepCopy()
	c.made = append(c.made, r)
	c.requests[r.Namespace+"/"+r.Name] = r
	if c.sign == nil {
		return nil
	}

	c.sign(r)
	if seen := c.seen; seen != nil && !c.silent {
		go seen(r)
	}
	return nil
}

func (c *cluster) Get(_ context.Context, namespace, name string) (*requestOf, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gets++
	if r := c.requests[namespace+"/"+name]; r != nil {
		return r, nil
	}
	return nil, apierrors.NewNotFound(certificatesv1.Resource("podcertificaterequests"), name)
}

func (c *cluster) Watch(ctx context.Context, seen, gone func(*requestOf)) {
	c.mu.Lock()
	c.watches++
	c.seen, c.gone = seen, gone
	known := slices.Clone(c.made)
	c.mu.Unlock()

	for _, r := range known {
		if !c.silent {
			seen(r)
		}
	}

	<-ctx.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watches--
	c.seen, c.gone = nil, nil
}

func (c *cluster) Pod(pod *v1.Pod, _, kind, reason, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, fmt.Sprintf("%s %s %s: %s", pod.Name, kind, reason, message))
}

// answer answers a request late.
func (c *cluster) answer(i int, sign func(*requestOf)) {
	c.mu.Lock()
	r, seen := c.made[i], c.seen
	sign(r)
	c.mu.Unlock()
	seen(r)
}

// remove deletes a request, as its controller does.
func (c *cluster) remove(i int) {
	c.mu.Lock()
	r, gone := c.made[i], c.gone
	delete(c.requests, r.Namespace+"/"+r.Name)
	c.mu.Unlock()
	if !c.silent {
		gone(r)
	}
}

// asked returns how many requests were made.
func (c *cluster) asked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.made)
}

// authority signs certificates.
var authority = func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}()

// certificateFor is a certificate for a public key, in PEM.
func certificateFor(t *testing.T, public any, life time.Duration) []byte {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}

	now := time.Now().Truncate(time.Second)
	template := &x509.Certificate{SerialNumber: serial, NotBefore: now, NotAfter: now.Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, authority)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// issue answers a request with a certificate for its key.
func issue(t *testing.T, r *requestOf, life, refresh time.Duration) {
	t.Helper()
	proof, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil {
		t.Fatal(err)
	}
	if err := proof.CheckSignature(); err != nil {
		t.Fatal(err)
	}

	intermediate := certificateFor(t, &authority.PublicKey, life)
	r.Status.CertificateChain = "text\n" + string(certificateFor(t, proof.PublicKey, life)) +
		"more text\n" + string(intermediate)
	r.Status.BeginRefreshAt = new(metav1.NewTime(time.Now().Add(refresh)))
	conclude(r, "Issued", "Signed", "here it is")
}

// conclude gives a request its last condition.
func conclude(r *requestOf, kind, reason, message string) {
	r.Status.Conditions = []metav1.Condition{{
		Type:    kind,
		Status:  metav1.ConditionTrue,
		Reason:  reason,
		Message: message,
	}}
}

// shows is a pod whose volume v has the sources.
func shows(uid types.UID, sources ...*v1.PodCertificateProjection) (*v1.Pod, *v1.Volume) {
	volume := v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{}}}
	for _, s := range sources {
		volume.Projected.Sources = append(volume.Projected.Sources, v1.VolumeProjection{PodCertificate: s})
	}

	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: uid},
		Spec:       v1.PodSpec{Volumes: []v1.Volume{volume}},
	}
	return pod, &pod.Spec.Volumes[0]
}

// source is a source with one file.
func source(signer string) *v1.PodCertificateProjection {
	return &v1.PodCertificateProjection{
		SignerName:           signer,
		KeyType:              "ED25519",
		CredentialBundlePath: "bundle.pem",
	}
}

package identity_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/identity"
)

var discard = slog.New(slog.DiscardHandler)

// run runs something until the test ends, and waits for its end.
func run(t *testing.T, f func(ctx context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { f(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// signer decides about the requests of a server: it is the cluster's signer and approver.
type signer struct {
	t      *testing.T
	server *kubetest.Server
	life   time.Duration
	deny   bool
}

// start decides about all requests until the test ends.
func (s signer) start() {
	requests := identity.RequestsOf(s.server.Client())
	w := kube.NewWatch(requests, kube.WatchConfig[certificatesv1.CertificateSigningRequest]{
		Changed: func(_, now *certificatesv1.CertificateSigningRequest) {
			if now != nil && len(now.Status.Conditions) == 0 {
				s.decide(now.DeepCopy())
			}
		},
	})
	run(s.t, w.Run)
}

func (s signer) decide(csr *certificatesv1.CertificateSigningRequest) {
	condition := certificatesv1.CertificateSigningRequestCondition{
		Type:   certificatesv1.CertificateApproved,
		Status: corev1.ConditionTrue,
		Reason: "Test",
	}
	if s.deny {
		condition.Type = certificatesv1.CertificateDenied
	} else {
		csr.Status.Certificate = certificateFor(s.t, csr.Spec.Request, s.life)
	}

	csr.Status.Conditions = append(csr.Status.Conditions, condition)
	s.server.Put(csr)
}

// certificateFor signs a request (PEM) for some time from now on.
func certificateFor(t *testing.T, request []byte, life time.Duration) []byte {
	t.Helper()
	block, _ := pem.Decode(request)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}

	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}

	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      csr.Subject,
		DNSNames:     csr.DNSNames,
		NotBefore:    time.Now(),
		NotAfter:     time.Now().Add(life),
	}

	der, err := x509.CreateCertificate(rand.Reader, template, template, csr.PublicKey, ca)
	if err != nil {
		t.Fatal(err)
	}

	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// files are those of a node that has to join the server's cluster.
func files(t *testing.T, server *kubetest.Server) identity.Config {
	t.Helper()
	dir := t.TempDir()
	bootstrap := filepath.Join(dir, "bootstrap")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c,
		contexts: [{name: c, context: {cluster: k, user: u}}],
		clusters: [{name: k, cluster: {server: "%s"}}], users: [{name: u, user: {token: t}}]}`, server.URL())
	if err := os.WriteFile(bootstrap, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	return identity.Config{
		NodeName:   "n",
		Kubeconfig: filepath.Join(dir, "own"),
		Bootstrap:  bootstrap,
		CertDir:    dir,
		UserAgent:  "trivet-test",
		Log:        discard,
	}
}

func clientOf(t *testing.T, cfg kube.Config) *kube.Client {
	t.Helper()
	client, err := kube.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// A static pod may be what the API server, or the way to it, runs in.
func TestNodeThatHasToJoinWaitsForNobody(t *testing.T) {
	server := kubetest.Start(t)
	server.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	cfg := files(t, server)
	id, err := identity.New(cfg)
	if err != nil {
		t.Fatal(err)
	}

	client := clientOf(t, id.API())
	node := func(ctx context.Context) error {
		_, err := kube.Nodes(client).Get(ctx, "", "n")
		return err
	}

	brief, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()

	if err := node(brief); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a request before the node has joined: %v", err)
	}

	answered, joined := make(chan error, 1), make(chan error, 1)
	run(t, func(ctx context.Context) { answered <- node(ctx) })
	run(t, func(ctx context.Context) { joined <- id.Run(ctx, identity.RequestsOf(client), false) })
	signer{t: t, server: server, life: time.Hour}.start()
	if err := errors.Join(<-joined, <-answered); err != nil {
		t.Error(err)
	}

	own, err := os.ReadFile(cfg.Kubeconfig)
	if err != nil || !strings.Contains(string(own), "kubelet-client-current.pem") {
		t.Errorf("kubeconfig %s, %v", own, err)
	}

	again, err := identity.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Run(t.Context(), identity.RequestsOf(client), false); err != nil {
		t.Errorf("the next start: %v", err)
	}

	if all := kubetest.All[certificatesv1.CertificateSigningRequest](
		server, "certificatesigningrequests"); len(all) != 1 {
		t.Errorf("%d requests for one certificate", len(all))
	}
}

func TestACertificateThatAnEarlierRunGotIsTaken(t *testing.T) {
	server := kubetest.Start(t)
	cfg := files(t, server)
	signer{t: t, server: server, life: time.Hour}.start()
	requests := identity.RequestsOf(server.Client())
	cert, key, err := identity.Sign(t.Context(), requests, identity.Request{NodeName: "n"})
	if err != nil {
		t.Fatal(err)
	}

	store := identity.Store{Dir: cfg.CertDir, Name: "kubelet-client"}
	if _, err := store.Put(cert, key, time.Now()); err != nil {
		t.Fatal(err)
	}

	server.FailOn("create certificatesigningrequests", -1, apierrors.NewUnauthorized("the token has ended"))
	id, err := identity.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Run(t.Context(), requests, false); err != nil {
		t.Errorf("a node with a certificate but no kubeconfig: %v", err)
	}
}

func TestWithoutAnIdentityTheReasonIsNamed(t *testing.T) {
	dir := t.TempDir()
	cfg := identity.Config{NodeName: "n", Kubeconfig: filepath.Join(dir, "none"), Log: discard}
	_, err := identity.New(cfg)
	if err == nil || !strings.Contains(err.Error(), "none") ||
		!strings.Contains(err.Error(), "no bootstrap kubeconfig") {
		t.Errorf("error %v", err)
	}
}

func TestARefusedRequestIsAnError(t *testing.T) {
	server := kubetest.Start(t)
	signer{t: t, server: server, deny: true}.start()
	requests := identity.RequestsOf(server.Client())
	_, _, err := identity.Sign(t.Context(), requests, identity.Request{NodeName: "n"})
	if err == nil || !strings.Contains(err.Error(), "Denied") {
		t.Errorf("error %v", err)
	}
}

func TestARequestThatNobodyApprovesIsNamed(t *testing.T) {
	server := kubetest.Start(t)
	ctx, cancel := context.WithCancelCause(t.Context())

	// Its time is over when the request has been made, and its decision is waited for.
	run(t, func(context.Context) {
		for range retry.Every(t.Context(), time.Millisecond) {
			if slices.Contains(server.Calls(), "watch certificatesigningrequests") {
				break
			}
		}
		cancel(context.DeadlineExceeded)
	})

	requests := identity.RequestsOf(server.Client())
	_, _, err := identity.Sign(ctx, requests, identity.Request{NodeName: "n"})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "approved") {
		t.Errorf("error %v", err)
	}
}

func TestAClientCertificateIsRenewedBeforeItEnds(t *testing.T) {
	server := kubetest.Start(t)
	cfg := files(t, server)
	signer{t: t, server: server, life: time.Hour}.start()
	requests := identity.RequestsOf(server.Client())

	// One at the end of its life: it was issued 50 minutes ago for an hour.
	store := identity.Store{Dir: cfg.CertDir, Name: "kubelet-client"}
	old := keyPair(t, "system:node:n", time.Now().Add(-50*time.Minute), time.Hour)
	if _, err := store.Put(old.cert, old.key, time.Now().Add(-50*time.Minute)); err != nil {
		t.Fatal(err)
	}

	before, err := store.Load()
	if err != nil {
		t.Fatal(err)
	}

	id, err := identity.New(cfg)
	if err != nil {
		t.Fatal(err)
	}

	run(t, func(ctx context.Context) { _ = id.Run(ctx, requests, true) })

	for range retry.Every(t.Context(), time.Millisecond) {
		now, err := store.Load()
		all, _ := filepath.Glob(filepath.Join(cfg.CertDir, "kubelet-client-2*.pem"))
		if err == nil && now.Leaf.NotAfter.After(before.Leaf.NotAfter) && len(all) == 1 {
			// the old one was removed, too
			break
		}
	}
}

// pair is a certificate with its key, PEM.
type pair struct{ cert, key []byte }

// keyPair makes a self-signed certificate.
func keyPair(t *testing.T, name string, from time.Time, life time.Duration) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}

	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: from.Add(life)}
	template.Subject.CommonName = name
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}

	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}

	return pair{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}
}

func TestAKubeconfigWhoseCertificateHasEndedIsReplaced(t *testing.T) {
	server := kubetest.Start(t)
	cfg := files(t, server)
	ended := keyPair(t, "system:node:n", time.Now().Add(-2*time.Hour), time.Hour)
	file := filepath.Join(cfg.CertDir, "ended.pem")
	if err := os.WriteFile(file, append(ended.cert, ended.key...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := kube.At("https://192.0.2.1").WriteKubeconfig(cfg.Kubeconfig, file); err != nil {
		t.Fatal(err)
	}

	signer{t: t, server: server, life: time.Hour}.start()
	id, err := identity.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Run(t.Context(), identity.RequestsOf(server.Client()), false); err != nil {
		t.Fatal(err)
	}

	store := identity.Store{Dir: cfg.CertDir, Name: "kubelet-client"}
	if now, err := store.Load(); err != nil || time.Now().After(now.Leaf.NotAfter) {
		t.Errorf("certificate %v, %v", now, err)
	}
}

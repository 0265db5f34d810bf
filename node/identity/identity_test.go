package identity_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
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
	requests := kube.CertificateRequests(s.server.Client())
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
	run(t, func(ctx context.Context) { joined <- id.Run(ctx, kube.CertificateRequests(client), false) })
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
	if err := again.Run(t.Context(), kube.CertificateRequests(client), false); err != nil {
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
	requests := kube.CertificateRequests(server.Client())
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
	requests := kube.CertificateRequests(server.Client())
	_, _, err := identity.Sign(t.Context(), requests, identity.Request{NodeName: "n"})
	if err == nil || !strings.Contains(err.Error(), "Denied") {
		t.Errorf("error %v", err)
	}
}

func TestARequestThatNobodyApprovesIsNamed(t *testing.T) {
	server := kubetest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	requests := kube.CertificateRequests(server.Client())
	_, _, err := identity.Sign(ctx, requests, identity.Request{NodeName: "n"})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "approved") {
		t.Errorf("error %v", err)
	}
}

func TestAClientCertificateIsRenewedBeforeItEnds(t *testing.T) {
	server := kubetest.Start(t)
	cfg := files(t, server)
	signer{t: t, server: server, life: time.Hour}.start()
	requests := kube.CertificateRequests(server.Client())

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
		if err == nil && now.Leaf.NotAfter.After(before.Leaf.NotAfter) {
			break
		}
	}
	all, err := filepath.Glob(filepath.Join(cfg.CertDir, "kubelet-client-2*.pem"))
	if err != nil || len(all) != 1 {
		t.Errorf("certificates %v, %v: the old one stays", all, err)
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
	if err := id.Run(t.Context(), kube.CertificateRequests(server.Client()), false); err != nil {
		t.Fatal(err)
	}
	store := identity.Store{Dir: cfg.CertDir, Name: "kubelet-client"}
	if now, err := store.Load(); err != nil || time.Now().After(now.Leaf.NotAfter) {
		t.Errorf("certificate %v, %v", now, err)
	}
}

func TestASelfSignedCertificateServesTheNodesNames(t *testing.T) {
	cfg := identity.ServingConfig{
		CertDir: t.TempDir(),
		Request: identity.Request{NodeName: "n"},
		Log:     discard,
	}
	cfg.Request.Address("127.0.0.1")
	cfg.Request.Address("node.example")
	s, err := identity.NewServing(cfg)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Certificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}

	pool := x509.NewCertPool()
	pool.AddCert(got.Leaf)
	for _, name := range []string{"127.0.0.1", "node.example", "n"} {
		_, err := got.Leaf.Verify(x509.VerifyOptions{
			Roots:     pool,
			DNSName:   name,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGivenFilesAreReadAgainWhenTheyChange(t *testing.T) {
	dir := t.TempDir()
	cfg := identity.ServingConfig{
		CertFile: filepath.Join(dir, "tls.crt"),
		KeyFile:  filepath.Join(dir, "tls.key"),
		Log:      discard,
	}
	if _, err := identity.NewServing(cfg); err == nil {
		t.Error("files that are not there are accepted")
	}
	write := func(name string, at time.Time) {
		p := keyPair(t, name, time.Now(), time.Hour)
		for path, data := range map[string][]byte{cfg.CertFile: p.cert, cfg.KeyFile: p.key} {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("first", time.Unix(1000, 0))
	s, err := identity.NewServing(cfg)
	if err != nil {
		t.Fatal(err)
	}
	name := func() string {
		got, err := s.Certificate(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		return got.Leaf.Subject.CommonName
	}
	if got := name(); got != "first" {
		t.Errorf("serves %s", got)
	}
	write("second", time.Unix(2000, 0))
	if got := name(); got != "second" {
		t.Errorf("serves %s after the files changed", got)
	}
	if err := os.WriteFile(cfg.CertFile, []byte("half writ"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := name(); got != "second" {
		t.Errorf("serves %s after the file was broken", got)
	}
}

func TestTheClustersSignerReplacesTheSelfSignedCertificate(t *testing.T) {
	server := kubetest.Start(t)
	cfg := identity.ServingConfig{
		Bootstrap: true,
		CertDir:   t.TempDir(),
		Request:   identity.Request{NodeName: "n", DNSNames: []string{"node.example"}},
		Log:       discard,
	}
	s, err := identity.NewServing(cfg)
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.Certificate(nil)
	if err != nil || !strings.HasPrefix(first.Leaf.Subject.CommonName, "n@") {
		t.Fatalf("%v, %v", first, err)
	}

	run(t, func(ctx context.Context) { _ = s.Run(ctx, kube.CertificateRequests(server.Client())) })
	signer{t: t, server: server, life: time.Hour}.start()
	for range retry.Every(t.Context(), time.Millisecond) {
		if now, err := s.Certificate(nil); err == nil && now.Leaf.Subject.CommonName == "system:node:n" {
			break
		}
	}
	all := kubetest.All[certificatesv1.CertificateSigningRequest](server, "certificatesigningrequests")
	if len(all) != 1 || all[0].Spec.SignerName != certificatesv1.KubeletServingSignerName {
		t.Errorf("requests %v", all)
	}
	if again, err := identity.NewServing(cfg); err != nil {
		t.Error(err)
	} else if now, _ := again.Certificate(nil); now.Leaf.Subject.CommonName != "system:node:n" {
		t.Error("the next start does not serve the stored certificate")
	}
}

package kubeapi_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/trivet-node/trivet/node/kubeapi"
)

// signer is an API server that signs what it is asked to, once it is allowed to.
type signer struct {
	t       *testing.T
	allowed chan struct{}
	csr     *certificatesv1.CertificateSigningRequest
}

func (s *signer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var out any
	switch {
	case r.URL.Path == "/api/v1/nodes/n":
		out = &v1.Node{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{Name: "n"},
		}

	case r.Method == http.MethodPost:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			s.t.Error(err)
		}

		obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
		if err != nil {
			s.t.Error(err)
		}

		s.csr = obj.(*certificatesv1.CertificateSigningRequest)
		s.csr.APIVersion, s.csr.Kind = "certificates.k8s.io/v1", "CertificateSigningRequest"
		s.csr.Name = "csr-1"
		out = s.csr

	default:
		// the watch
		<-s.allowed
		signed := s.csr.DeepCopy()
		signed.Status.Certificate = s.sign(signed.Spec.Request)
		signed.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{
			Type:   certificatesv1.CertificateApproved,
			Status: v1.ConditionTrue,
		}}

		out = map[string]any{"type": "ADDED", "object": signed}
	}

	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(out); err != nil {
		s.t.Error(err)
	}
}

func (s *signer) sign(request []byte) []byte {
	block, _ := pem.Decode(request)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		s.t.Error(err)
		return nil
	}

	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Error(err)
		return nil
	}

	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      csr.Subject,
		NotAfter:     time.Now().Add(time.Hour),
	}

	der, err := x509.CreateCertificate(rand.Reader, template, template, csr.PublicKey, ca)
	if err != nil {
		s.t.Error(err)
	}

	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// A static pod may be what the API server, or the way to it, runs in.
func TestNodeThatHasToJoinWaitsForNobody(t *testing.T) {
	s := &signer{t: t, allowed: make(chan struct{})}
	server := httptest.NewServer(s)
	defer server.Close()

	dir := t.TempDir()
	bootstrap := filepath.Join(dir, "bootstrap")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c,
		contexts: [{name: c, context: {cluster: k, user: u}}],
		clusters: [{name: k, cluster: {server: "%s"}}], users: [{name: u, user: {token: t}}]}`, server.URL)
	if err := os.WriteFile(bootstrap, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	id := kubeapi.Identity{
		NodeName:   "n",
		Kubeconfig: filepath.Join(dir, "own"),
		Bootstrap:  bootstrap,
		CertDir:    dir,
	}

	cfg, join, err := kubeapi.Connect(id, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	client, err := kubeapi.New(cfg)
	if err != nil {
		t.Fatal(err)
	}

	node := func(ctx context.Context) error {
		return client.Core.Get().Resource("nodes").Name("n").Do(ctx).Error()
	}
	brief, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()

	if err := node(brief); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a request before the node has joined: %v", err)
	}

	answered := make(chan error)
	go func() { answered <- node(t.Context()) }()
	joined := make(chan error)
	go func() { joined <- join(t.Context()) }()
	close(s.allowed)
	if err := errors.Join(<-joined, <-answered); err != nil {
		t.Error(err)
	}

	_, next, err := kubeapi.Connect(id, slog.New(slog.DiscardHandler))
	if err != nil || next(t.Context()) != nil {
		t.Errorf("the next start: %v", err)
	}

	own, err := os.ReadFile(id.Kubeconfig)
	if err != nil || !strings.Contains(string(own), "kubelet-client-current.pem") {
		t.Errorf("kubeconfig %s, %v", own, err)
	}
}

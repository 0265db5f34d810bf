package kubeapi_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trivet-node/trivet/node/kubeapi"
)

func TestPatienceWithTheNodeAuthorizer(t *testing.T) {
	forbidden := apierrors.NewForbidden(v1.Resource("secrets"), "s", nil)
	calls := 0
	err := kubeapi.Patient(t.Context(), func() error {
		if calls++; calls < 3 {
			return forbidden
		}

		return nil
	})
	if err != nil || calls != 3 {
		t.Errorf("%v after %d calls", err, calls)
	}

	calls = 0
	other := errors.New("other")
	if err := kubeapi.Patient(t.Context(), func() error { calls++; return other }); !errors.Is(err, other) ||
		calls != 1 {
		t.Errorf("another error: %v after %d calls", err, calls)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := kubeapi.Patient(ended, func() error { return forbidden }); !apierrors.IsForbidden(err) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestWithoutAnIdentityTheReasonIsNamed(t *testing.T) {
	dir := t.TempDir()
	id := kubeapi.Identity{NodeName: "n", Kubeconfig: filepath.Join(dir, "none")}
	_, _, err := kubeapi.Connect(id, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "none") ||
		!strings.Contains(err.Error(), "no bootstrap kubeconfig") {
		t.Errorf("error %v", err)
	}

	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := kubeapi.Load(broken); err == nil || !strings.Contains(err.Error(), broken) {
		t.Errorf("error %v", err)
	}
}

func TestServingCertificate(t *testing.T) {
	s := &kubeapi.Serving{
		CertDir: t.TempDir(),
		Request: kubeapi.Request{NodeName: "n"},
		Log:     slog.New(slog.DiscardHandler),
	}

	s.Request.Address("127.0.0.1")
	s.Request.Address("node.example")
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}

	pair, err := s.Certificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}

	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	for _, name := range []string{"127.0.0.1", "node.example", "n"} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{
			Roots:     pool,
			DNSName:   name,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	missing := &kubeapi.Serving{CertFile: filepath.Join(t.TempDir(), "tls.crt"), KeyFile: "x"}
	if err := missing.Start(); err == nil {
		t.Error("files that are not there are accepted")
	}
}

package identity_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/identity"
)

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

	run(t, func(ctx context.Context) { _ = s.Run(ctx, identity.RequestsOf(server.Client())) })
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

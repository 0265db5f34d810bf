package pki

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCertificatesVerifyAndAreKept(t *testing.T) {
	d := Dir(filepath.Join(t.TempDir(), "pki"))
	ca, err := d.Authority("ca")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Server(ca, "apiserver", "kube-apiserver", "kubernetes.default.svc", "10.96.0.1"); err != nil {
		t.Fatal(err)
	}

	pair, err := tls.LoadX509KeyPair(d.Path("apiserver.crt"), d.Path("apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}

	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM)
	for _, host := range []string{"kubernetes.default.svc", "10.96.0.1"} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}

	again, err := d.Authority("ca")
	if err != nil || string(again.PEM) != string(ca.PEM) {
		t.Errorf("the authority was made anew (%v)", err)
	}
}

func TestNodeKubeconfigCarriesItsIdentity(t *testing.T) {
	d := Dir(t.TempDir())
	ca, err := d.Authority("ca")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Client(ca, "node", "system:node:n1", "system:nodes"); err != nil {
		t.Fatal(err)
	}

	pair, err := tls.LoadX509KeyPair(d.Path("node.crt"), d.Path("node.key"))
	if err != nil {
		t.Fatal(err)
	}

	if s := pair.Leaf.Subject; s.CommonName != "system:node:n1" || len(s.Organization) != 1 ||
		s.Organization[0] != "system:nodes" {
		t.Errorf("subject %s", s)
	}

	file := d.Path("kubeconfig")
	if err := d.Kubeconfig(ca, "node", "https://10.99.0.1:6443", file); err != nil {
		t.Fatal(err)
	}

	data, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(data), "server: https://10.99.0.1:6443") {
		t.Errorf("kubeconfig %s (%v)", data, err)
	}
}

func TestDamagedAuthorityIsNotOverwritten(t *testing.T) {
	d := Dir(t.TempDir())
	for _, f := range []string{"ca.crt", "ca.key"} {
		if err := os.WriteFile(d.Path(f), []byte("torn"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Authority("ca"); err == nil || !strings.Contains(err.Error(), "ca") {
		t.Errorf("error %v, want one that names the authority", err)
	}
}

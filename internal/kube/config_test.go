package kube_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

// kubeconfig writes a file with a token for the server.
func kubeconfig(t *testing.T, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c,
		contexts: [{name: c, context: {cluster: k, user: u}}],
		clusters: [{name: k, cluster: {server: "%s"}}], users: [{name: u, user: {token: t}}]}`, server)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAKubeconfigLeadsToItsServer(t *testing.T) {
	server := kubetest.Start(t)
	server.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	cfg, err := kube.Load(kubeconfig(t, server.URL()))
	if err != nil {
		t.Fatal(err)
	}

	client, err := kube.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kube.Nodes(client).Get(t.Context(), "", "n"); err != nil {
		t.Error(err)
	}
	if cert, key, err := cfg.ClientCertificate(); cert != nil || key != nil || err != nil {
		t.Errorf("a certificate where there is a token: %v", err)
	}

	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := kube.Load(broken); err == nil || !strings.Contains(err.Error(), broken) {
		t.Errorf("a broken kubeconfig: %v", err)
	}
}

func TestTheServerIsNamedByHostAndPort(t *testing.T) {
	for url, want := range map[string]string{
		"https://192.0.2.1:6443": "192.0.2.1 6443",
		"https://api.example":    "api.example 443",
		"https://[2001:db8::1]":  "2001:db8::1 443",
		"http://192.0.2.1":       "192.0.2.1 80",
		"192.0.2.1:6443":         "192.0.2.1 6443",
		"https://a b":            "error",
	} {
		host, port, err := kube.At(url).Server()
		got := host + " " + port
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
}

func TestAWrittenKubeconfigNamesTheCertificate(t *testing.T) {
	dir := t.TempDir()
	pem := filepath.Join(dir, "client.pem")
	if err := os.WriteFile(pem, []byte("a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}

	bootstrap, err := kube.Load(kubeconfig(t, "https://192.0.2.1:6443"))
	if err != nil {
		t.Fatal(err)
	}

	own := filepath.Join(dir, "own")
	if err := bootstrap.WriteKubeconfig(own, pem); err != nil {
		t.Fatal(err)
	}

	cfg, err := kube.Load(own)
	if err != nil {
		t.Fatal(err)
	}

	cert, key, err := cfg.ClientCertificate()
	if err != nil || string(cert) != "a certificate" || string(key) != "a certificate" {
		t.Errorf("certificate %q, key %q, %v", cert, key, err)
	}
	if host, _, err := cfg.Server(); err != nil || host != "192.0.2.1" {
		t.Errorf("server %s, %v", host, err)
	}
}

// recorder is a transport that remembers the requests.
type recorder struct{ agents []string }

func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	r.agents = append(r.agents, request.UserAgent())
	return http.DefaultTransport.RoundTrip(request)
}

func TestRequestsGoThroughAGivenTransport(t *testing.T) {
	server := kubetest.Start(t)
	server.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	via := &recorder{}
	cfg := server.Config().Via(via)
	cfg.UserAgent = "trivet-test/1"
	client, err := kube.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kube.Nodes(client).Get(t.Context(), "", "n"); err != nil {
		t.Fatal(err)
	}
	if len(via.agents) != 1 || via.agents[0] != "trivet-test/1" {
		t.Errorf("requests of %v", via.agents)
	}
}

package controlplane

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/pki"
)

func TestEveryFileOnACommandLineIsOneThatIsMade(t *testing.T) {
	d := pki.Dir(t.TempDir())
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := MakeIdentities(d, []string{"node1"}, "https://127.0.0.1:1", kubeconfig); err != nil {
		t.Fatal(err)
	}

	p := Plane{
		Programs: seat.Programs{Ours: "/ours", Reference: "/ref"},
		PKI:      d,
		Images:   "/images",
		Data:     "/data",
		Corefile: "/corefile",
	}

	for _, daemon := range append(p.Base(), append(p.Controllers(), p.SnapshotController())...) {
		for _, arg := range daemon.Argv {
			_, value, _ := strings.Cut(arg, "=")
			if !strings.HasPrefix(value, string(d)) {
				continue
			}
			if _, err := os.Stat(value); err != nil {
				t.Errorf("%s %s: %v", daemon.Name, arg, err)
			}
		}
	}

	for from := range NodeFiles("node1") {
		if _, err := os.Stat(d.Path(from)); err != nil {
			t.Errorf("file of a node: %v", err)
		}
	}

	if !strings.Contains(p.DNSConfig(), d.Path("coredns.kubeconfig")) {
		t.Errorf("CoreDNS does not use its kubeconfig: %s", p.DNSConfig())
	}
}

func TestIdentitiesAreKeptWhenTheClusterComesUpAgain(t *testing.T) {
	d := pki.Dir(t.TempDir())
	kubeconfig := d.Path("kubeconfig")
	var contents []string
	for range 2 {
		if err := MakeIdentities(d, []string{"node1"}, "https://127.0.0.1:1", kubeconfig); err != nil {
			t.Fatal(err)
		}

		var all strings.Builder
		for _, name := range []string{"ca.crt", "node1.crt", tokenFile} {
			data, err := os.ReadFile(d.Path(name))
			if err != nil {
				t.Fatal(err)
			}

			all.Write(data)
		}

		contents = append(contents, all.String())
	}

	if contents[0] != contents[1] {
		t.Error("the second time has made other identities")
	}
}

func TestEachNodeHasAnIdentityForItsAgentAndOneForItsDriver(t *testing.T) {
	var users []string
	for _, id := range identities([]string{"a", "b"}) {
		users = append(users, id.user)
	}

	for _, want := range []string{
		"system:node:a",
		"system:node:b",
		"csi.trivet.dev:node:a",
		"csi.trivet.dev:node:b",
		"system:serviceaccount:kube-system:coredns",
	} {
		if !slices.Contains(users, want) {
			t.Errorf("%s is not among %v", want, users)
		}
	}
}

func TestANodeGetsNoOtherNodesIdentity(t *testing.T) {
	for from := range NodeFiles("a") {
		if strings.HasPrefix(from, "b") && from != "bootstrap.kubeconfig" {
			t.Errorf("node a gets %s", from)
		}
	}
}

func TestManifestsAreThoseOfTheRepositoryWithoutDaemonSets(t *testing.T) {
	d := pki.Dir(t.TempDir())
	if err := os.WriteFile(d.Path(tokenFile), []byte("abcdef.0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}

	text, err := Manifests(d, "../../../deploy")
	if err != nil {
		t.Fatal(err)
	}

	for _, want := range []string{
		"name: bootstrap-token-abcdef",
		`token-secret: "0123456789abcdef"`,
		"clusterIP: 10.96.0.10",
		"kind: CSIDriver",
		"volumeLifecycleModes: [Persistent, Ephemeral]",
		"podInfoOnMount: true",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the manifests", want)
		}
	}

	if strings.Contains(text, "kind: DaemonSet") {
		t.Error("a DaemonSet is among the manifests")
	}
}

func TestNodesAndMetricsServerAreVerifiedByTheClustersCA(t *testing.T) {
	d := pki.Dir(t.TempDir())
	if err := MakeIdentities(d, []string{"a", "b"}, "https://127.0.0.1:1", d.Path("kubeconfig")); err != nil {
		t.Fatal(err)
	}

	ca, err := os.ReadFile(d.Path("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}

	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	for file, host := range map[string]string{
		"a-serving":      "10.99.1.1",
		"b-serving":      "10.99.1.2",
		"metrics-server": "metrics-server.kube-system.svc",
	} {
		pair, err := tls.LoadX509KeyPair(d.Path(file+".crt"), d.Path(file+".key"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots}); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}

	text, err := MetricsServer(d)
	if err != nil {
		t.Fatal(err)
	}

	if want := "caBundle: " + base64.StdEncoding.EncodeToString(ca); !strings.Contains(text, want) {
		t.Error("the API server cannot verify metrics-server")
	}
	for _, left := range []string{": CA_BUNDLE", ": CERTIFICATE", ": KEY"} {
		if strings.Contains(text, left) {
			t.Errorf("%q was not filled in", left)
		}
	}
}

func TestTokenThatIsTornIsRefused(t *testing.T) {
	if _, err := tokenSecret("abcdef"); err == nil {
		t.Error("a token without a secret was taken")
	}
}

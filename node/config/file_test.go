package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTyposInAFileAreRefusedByTheirPaths(t *testing.T) {
	for text, want := range map[string]string{
		"authentication: {anonymus: {enabled: false}}\n":            "authentication.anonymus",
		"authentication: {webhook: {enabeld: true}}\n":              "authentication.webhook.enabeld",
		"logging: {options: {text: {splitStreams: true}}}\n":        "logging.options.text.splitStreams",
		"registerWithTaints: [{key: a, efect: NoSchedule}]\n":       "registerWithTaints[0].efect",
		"maxPods: 10\nmaxPods: 20\n":                                "maxPods",
		"evictionHard:\n  pid.available: 1%\n  pid.available: 2%\n": "pid.available",
		"MaxPods: 10\n":                   "MaxPods",
		"maxPods: ten\n":                  "maxPods",
		"nodeStatusUpdateFrequency: 10\n": "",
	} {
		if _, err := configured(t, header+text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", text, err, want)
		}
	}
}

func TestAFileOfAnotherKindIsRefused(t *testing.T) {
	for _, text := range []string{"kind: Other\n",
		"kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1\n", "[]", "x"} {
		if _, err := configured(t, text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	if _, err := configured(t, header+strings.Repeat("#", maxFile)); err == nil {
		t.Error("a file of more than a MiB is taken")
	}
}

func TestDropInsAreLaidOverTheFileInOrder(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"10.conf":        header + "maxPods: 10\nevictionHard: {pid.available: 1%}\nclusterDNS: [10.0.0.1]\n",
		"20.conf":        header + "maxPods: 20\nauthentication: {webhook: {cacheTTL: 1m}}\n",
		"30.yaml":        header + "maxPods: 30\n",
		"more/05.conf":   header + "clusterDomain: example.org\nclusterDNS: [192.0.2.2, 192.0.2.3]\n",
		"more/note.text": "not a configuration",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	c, err := configured(t, kubeadm, "--config-dir="+dir)
	if err != nil {
		t.Fatal(err)
	}

	k := c.Kubelet
	if k.MaxPods != 20 || k.ClusterDomain != "example.org" || len(k.ClusterDNS) != 2 {
		t.Errorf("maxPods %d, domain %s, DNS %v", k.MaxPods, k.ClusterDomain, k.ClusterDNS)
	}
	if len(k.EvictionHard) != 3 || k.EvictionHard["nodefs.available"] != "0%" {
		t.Errorf("evictionHard %v, want that of the file and the drop-in", k.EvictionHard)
	}

	if k.Authentication.Webhook.CacheTTL.Minutes() != 1 ||
		k.Authentication.X509.ClientCAFile != "/etc/kubernetes/pki/ca.crt" {
		t.Errorf("authentication %+v", k.Authentication)
	}
}

func TestATypoInADropInNamesFileAndField(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "1.conf"), []byte(header+"authorization: {mod: Webhook}\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	_, err := configured(t, "", "--config-dir="+dir)
	if err == nil || !strings.Contains(err.Error(), "1.conf") ||
		!strings.Contains(err.Error(), "authorization.mod") {
		t.Errorf("%v, want the file and the field", err)
	}
}

package scenario

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// certified runs a pod with a source of each of the signers in one volume, that has a file for each:
// 0.pem, 1.pem, ...
func (c *cluster) certified(name string, s *signer, kinds ...string) {
	c.t.Helper()
	var sources []map[string]any
	for i, kind := range kinds {
		sources = append(sources, map[string]any{"podCertificate": map[string]any{
			"signerName":           s.domain + "/" + kind,
			"keyType":              []string{"ECDSAP256", "ED25519", "RSA3072"}[i%3],
			"maxExpirationSeconds": 3600,
			"credentialBundlePath": fmt.Sprintf("%d.pem", i),
		}})
	}

	data, err := json.Marshal(sources)
	if err != nil {
		c.t.Fatal(err)
	}
	const pod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q}, "spec": {"nodeName": %q,
		"terminationGracePeriodSeconds": 2, "serviceAccountName": %q,
		"volumes": [{"name": "tls", "projected": {"sources": %s}}],
		"containers": [{"name": "c", "image": "docker.io/trivet/demo:1",
			"command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.2; done"],
			"volumeMounts": [{"name": "tls", "mountPath": "/tls"}]}]}}`
	c.apply(fmt.Sprintf(pod, name, c.node, name, data))
}

// account makes a service account of that name.
func (c *cluster) account(name string) {
	c.t.Helper()
	c.kubectl("create", "serviceaccount", name)
}

// bundle is what a pod finds in a file. Key and certificate match.
func (c *cluster) bundle(pod, file string) string {
	c.t.Helper()
	out := c.kubectl("exec", pod, "--", "cat", "/tls/"+file)
	if _, err := tls.X509KeyPair([]byte(out), []byte(out)); err != nil {
		c.t.Errorf("%s of pod %s: %v", file, pod, err)
	}
	return out
}

// asked returns how many requests there are for a pod.
func (c *cluster) asked(pod string) int {
	c.t.Helper()
	return strings.Count(c.kubectl("get", "podcertificaterequests",
		"-o", `jsonpath={range .items[?(@.spec.podName=="`+pod+`")]}x{end}`), "x")
}

// awaitEvent waits until an object, by its name, has an event with the words.
func (c *cluster) awaitEvent(object, reason, words string) {
	c.t.Helper()
	c.eventually(time.Minute, "event "+reason+" of "+object, func() error {
		out, err := c.try("get", "events", "--field-selector=reason="+reason+",involvedObject.name="+object,
			"-o", "jsonpath={.items[*].message}")
		if err == nil && !strings.Contains(out, words) {
			err = fmt.Errorf("%q", out)
		}
		return err
	})
}

// TestPodsGetCertificatesFromTheirSigners has a signer answer in each way that the API knows.
func TestPodsGetCertificatesFromTheirSigners(t *testing.T) {
	c := open(t)
	s := c.signs()
	for _, name := range []string{"several", "denied", "failed", "late"} {
		c.account(name)
	}

	c.certified("several", s, "issue", "issue", "issue")
	c.certified("denied", s, "issue", "deny")
	c.certified("failed", s, "fail")
	c.certified("late", s, "silent")
	c.awaitReady(time.Minute, "several")
	seen := map[string]bool{}
	for i := range 3 {
		seen[c.bundle("several", fmt.Sprintf("%d.pem", i))] = true
	}
	if len(seen) != 3 || c.asked("several") != 3 {
		t.Errorf("%d certificates by %d requests, want 3 of each", len(seen), c.asked("several"))
	}

	c.awaitEvent("denied", "FailedMount", `permanently denied: reason="UnsupportedKeyType"`)
	c.awaitEvent("denied", "Denied", "UnsupportedKeyType")
	c.awaitEvent("failed", "FailedMount", `permanently failed: reason="Broken" message="no luck today"`)
	c.awaitEvent("failed", "Failed", "no luck today")
	c.awaitEvent("late", "FailedMount", "credential bundle is not issued yet")

	// An answer is acted on when it comes.
	s.release(t.Context(), "silent")
	c.awaitReady(20*time.Second, "late")
	c.bundle("late", "0.pem")
	for _, pod := range []string{"denied", "failed"} {
		if phase := c.kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase}"); phase != "Pending" {
			t.Errorf("pod %s is %s, want Pending", pod, phase)
		}
	}
}

// TestCertificatesOutliveTheAgent kills the agent, deletes the service account, and reboots the node.
func TestCertificatesOutliveTheAgent(t *testing.T) {
	c := open(t)
	s := c.signs()
	c.account("p")
	c.certified("p", s, "issue", "issue")
	c.awaitReady(time.Minute, "p")
	first := c.bundle("p", "0.pem") + c.bundle("p", "1.pem")

	for range 3 {
		c.killAgent()
	}

	// A pod that comes after shows that the agent has looked at all of them.
	c.account("q")
	c.certified("q", s, "issue")
	c.awaitReady(time.Minute, "q")
	if again := c.bundle("p", "0.pem") + c.bundle("p", "1.pem"); again != first {
		t.Error("the pod has other certificates")
	}
	if n := c.asked("p"); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}

	// What an account was needed for is done; a new pod of it waits until it is back.
	c.kubectl("delete", "serviceaccount", "p", "q")
	c.neverRestarted("p", "q")
	if again := c.bundle("p", "0.pem") + c.bundle("p", "1.pem"); again != first {
		t.Error("the pod has other certificates")
	}

	c.kubectl("delete", "pod", "q")
	if n := c.asked("p"); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
}

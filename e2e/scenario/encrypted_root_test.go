package scenario

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	firstSecret  = "the first key of this test, which is long enough"
	secondSecret = "the second key of this test, which is long enough"
)

// TestEncryptedVolumeIsReadWithItsSecretAlone follows a claim of a class that encrypts: without its Secret no
// pod has it, nor with another one, the node's disk has nothing of what a pod writes, and nothing of the key
// is left when the claim is gone.
func TestEncryptedVolumeIsReadWithItsSecretAlone(t *testing.T) {
	c := open(t)
	class := c.namespace
	c.storageClass(class, "WaitForFirstConsumer", object{
		"backend":    "image",
		"encryption": "fscrypt",
		"csi.storage.k8s.io/node-stage-secret-name":      "key-of-${pvc.name}",
		"csi.storage.k8s.io/node-stage-secret-namespace": "${pvc.namespace}",
	}, c.node)

	c.applyAll(wish{name: "data", class: class}.claim(), on(c.node, user("first", "data")))
	c.awaitBound("data")
	pv := c.get("pvc/data", "{.spec.volumeName}")
	c.awaitField("pv/"+pv, "{.spec.csi.nodeStageSecretRef.namespace}/{.spec.csi.nodeStageSecretRef.name}",
		c.namespace+"/key-of-data")
	c.awaitEvent("first", "FailedMount", "key-of-data")

	c.keySecret("too short")
	c.awaitEvent("first", "FailedMount", "encryptionKey")
	c.keySecret(firstSecret)
	c.awaitReady(2*time.Minute, "first")
	c.kubectl("exec", "first", "--", "sh", "-c", "echo what-a-pod-has-written >/data/name-of-a-file; sync")
	c.endPod("first", pv)

	// With another Secret it is as if it were gone, and comes back with its own.
	c.keySecret(secondSecret)
	c.applyAll(on(c.node, user("second", "data")))
	c.awaitEvent("second", "FailedMount", "another key")
	c.keySecret(firstSecret)
	c.awaitReady(2*time.Minute, "second")
	got := c.kubectl("exec", "second", "--", "cat", "/data/name-of-a-file")
	if got != "what-a-pod-has-written\n" {
		t.Errorf("the second pod reads %q", got)
	}
	c.endPod("second", pv)
	c.checkDiskHasNot(pv, "what-a-pod-has-written", "name-of-a-file", firstSecret, secondSecret)

	files := c.filesOf(pv)
	for _, file := range []string{"images/" + pv + ".img", "keys/image/" + pv, "volumes/" + pv + ".json"} {
		if !slices.Contains(files, "/var/lib/trivet/csi/"+file) {
			t.Errorf("the volume has no %s, but %q", file, files)
		}
	}
	c.kubectl("delete", "pvc", "data", "--timeout=60s")
	c.awaitGone("pv/" + pv)
	c.eventually(time.Minute, "the end of its files", func() error {
		if left := c.filesOf(pv); len(left) > 0 {
			return fmt.Errorf("left are %q", left)
		}
		return nil
	})
}

// filesOf are those that the node has of a volume.
func (c *cluster) filesOf(pv string) []string {
	c.t.Helper()
	return strings.Fields(c.onNode("", "find /var/lib/trivet/csi -type f -name '%s*'", pv))
}

// keySecret makes the Secret with the key of the claim "data", or changes it.
func (c *cluster) keySecret(key string) {
	c.t.Helper()
	c.applyAll(object{
		"apiVersion": "v1",
		"kind":       "Secret",
		"metadata":   object{"name": "key-of-data"},
		"stringData": object{"encryptionKey": key},
	})
}

// endPod deletes a pod, and waits until its node does not have a volume any more.
func (c *cluster) endPod(pod, pv string) {
	c.t.Helper()
	c.kubectl("delete", "pod", pod, "--timeout=60s")
	c.eventually(time.Minute, "the end of the staging of "+pv, func() error {
		if staged := c.onNode("", "ls /run/trivet/csi/staged"); strings.Contains(staged, pv) {
			return fmt.Errorf("staged are %s", staged)
		}
		return nil
	})
}

// checkDiskHasNot looks for texts in the image of a volume, and in all that the node's programs have written
// about it. What is not encrypted of the volume is found there.
func (c *cluster) checkDiskHasNot(pv string, texts ...string) {
	c.t.Helper()
	image := "/var/lib/trivet/csi/images/" + pv + ".img"
	if found := c.filesWith("lost+found", pv); !slices.Contains(found, image) {
		c.t.Errorf("nothing is found in %s", image)
	}
	if found := c.filesWith(pv, pv); !slices.Contains(found, "/var/lib/trivet/csi/volumes/"+pv+".json") {
		c.t.Errorf("the record of the volume is not looked through, but %q", found)
	}
	for _, text := range texts {
		if found := c.filesWith(text, pv); len(found) > 0 {
			c.t.Errorf("%q is in %q", text, found)
		}
	}
}

// filesWith are the files with a text, of those that are about a volume.
func (c *cluster) filesWith(text, pv string) []string {
	c.t.Helper()
	const look = "grep -rlF -e '%s' /var/lib/trivet/csi/images/%s.img /var/lib/trivet/csi/volumes " +
		"/var/lib/trivet/csi/keys /run/trivet /var/log/trivet* 2>/dev/null || true"
	return strings.Fields(c.onNode("", look, text, pv))
}

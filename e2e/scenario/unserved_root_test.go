package scenario

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestClaimsThatCannotBeServedAreWhenTheirClassesAreMended has claims whose classes are not there, or wrong.
func TestClaimsThatCannotBeServedAreWhenTheirClassesAreMended(t *testing.T) {
	c := open(t)
	const waits = "WaitForFirstConsumer"
	missing, wrong, ntfs := "missing-"+c.namespace, "wrong-"+c.namespace, "ntfs-"+c.namespace
	c.storageClass(wrong, waits, object{"backend": "floppy"})
	c.storageClass(ntfs, waits, object{"csi.storage.k8s.io/fstype": "ntfs"})

	pods := []string{"missing", "wrong", "ntfs"}
	c.applyAll(
		wish{name: "missing", class: missing}.claim(), on(c.node, user("missing", "missing")),
		wish{name: "wrong", class: wrong}.claim(), on(c.node, user("wrong", "wrong")),
		wish{name: "ntfs", class: ntfs}.claim(), on(c.node, user("ntfs", "ntfs")),
	)
	c.awaitEvent("missing", "ProvisioningFailed", missing)
	c.awaitEvent("wrong", "ProvisioningFailed", "floppy")
	c.awaitEvent("ntfs", "ProvisioningFailed", "ntfs")

	// Parameters of a class cannot be changed, but another class can have its name.
	c.kubectl("delete", "storageclass", wrong, ntfs)
	for _, class := range []string{missing, wrong, ntfs} {
		c.storageClass(class, waits, nil)
	}
	c.awaitReady(2*time.Minute, pods...)

	// Volumes outlive their class.
	c.kubectl("delete", "storageclass", missing, wrong, ntfs)
	c.kubectl("delete", "pod/wrong", "pvc/wrong", "--wait")
	c.awaitReady(time.Minute, "missing", "ntfs")
}

// TestPodsOfAForgottenNodeGetOtherVolumes has a pod whose volume is on a node that does not come back.
func TestPodsOfAForgottenNodeGetOtherVolumes(t *testing.T) {
	c := open(t)
	node := "gone-" + c.namespace
	pv := c.namespace + "-lost"
	c.apply(volumeOn(c.namespace, "lost", node))
	c.t.Cleanup(func() { c.kubectl("delete", "pv", pv, "--ignore-not-found") })
	c.kubectl("patch", "pv", pv, "--type=merge", "-p",
		`{"metadata": {"finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"]}}`)
	c.snapshotKinds()
	c.apply(snapshotOn(c.namespace, "taken", node))
	c.applyAll(wish{name: "lost", class: "none", volume: pv}.claim(), user("lost", "lost"))
	c.awaitBound("lost")
	c.awaitUnschedulable("lost", "PersistentVolume's node affinity")

	// Nobody forgets a node that is there.
	forget := func(node string) (string, error) {
		return c.run(time.Minute, "", filepath.Join(c.root, "bin/trivet-csi"),
			"forget-node", node, "--kubeconfig="+filepath.Join(c.dir, "kubeconfig"))
	}
	if _, err := forget(c.node); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("a node that exists: %v", err)
	}

	out, err := forget(node)
	want := fmt.Sprintf("VolumeSnapshotContent %s-taken (VolumeSnapshot %s/taken)\n"+
		"PersistentVolume %s (PersistentVolumeClaim %[2]s/lost)\n", c.namespace, c.namespace, pv)
	if err != nil || out != want {
		t.Fatalf("forgotten are %q, %v; want %q", out, err, want)
	}
	c.awaitGone("pv/"+pv, "volumesnapshotcontent/"+c.namespace+"-taken")
	c.awaitField("pvc/lost", "{.status.phase}", "Lost")
	c.awaitEvent("lost", "NodeForgotten", node)

	// The pod has waited all the time.
	c.kubectl("delete", "pvc", "lost", "--wait")
	c.applyAll(wish{name: "lost"}.claim())
	c.awaitReady(2*time.Minute, "lost")
}

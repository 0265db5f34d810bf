package scenario

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestAVolumeGoesThroughItsLife follows a claim that waits for its first consumer: what scheduler,
// controller-manager, driver and agent make of it, from the registration of the driver to the end of the
// volume.
func TestAVolumeGoesThroughItsLife(t *testing.T) {
	c := open(t)
	c.checkRegistered()

	// Alone it waits, and nobody has been asked for anything.
	c.applyAll(wish{name: "data"}.claim(), wish{name: "single", mode: "ReadWriteOncePod"}.claim())
	c.awaitEvent("data", "WaitForFirstConsumer", "waiting for first consumer")
	if got := c.get("pvc/data", "{.metadata.annotations}{.spec.volumeName}"); strings.Contains(got, "node") ||
		strings.Contains(got, "provisioner") {
		t.Errorf("a claim that nobody uses has %s", got)
	}

	c.applyAll(on(c.node, user("first", "data")), on(c.node, user("alone", "single")))
	c.awaitReady(2*time.Minute, "first", "alone")
	pv := c.checkVolume("data")
	c.checkMounts(pv, 1)

	// Pods that come later are where the volume is, if they may have it.
	c.applyAll(user("second", "data"), user("late", "single"))
	c.awaitReady(2*time.Minute, "second")
	c.awaitUnschedulable("late", "ReadWriteOncePod")
	c.checkMounts(pv, 2)
	if node := c.get("pod/second", "{.spec.nodeName}"); node != c.node {
		t.Errorf("the second pod is on %s, its volume on %s", node, c.node)
	}

	c.growAndRecover("data")
	c.deleteInUse("data", pv, "first")
}

// checkRegistered checks what kubelet's contract says of a driver that is registered, and how the cluster
// sees it.
func (c *cluster) checkRegistered() {
	c.t.Helper()
	const entry = `{range .spec.drivers[?(@.name=="` + driverName + `")]}{.nodeID} {.topologyKeys[*]}{end}`
	c.awaitField("csinode/"+c.node, entry, c.node+" topology."+driverName+"/node")
	c.awaitField("node/"+c.node, `{.metadata.labels.topology\.csi\.trivet\.dev/node}`, c.node)

	ids := c.get("node/"+c.node, `{.metadata.annotations.csi\.volume\.kubernetes\.io/nodeid}`)
	if want := fmt.Sprintf("%q:%q", driverName, c.node); !strings.Contains(ids, want) {
		c.t.Errorf("the Node's IDs are %s, want %s", ids, want)
	}

	// Clusters of tests have inline volumes, too.
	const spec = "{.spec.attachRequired} {.spec.storageCapacity} {.spec.fsGroupPolicy} " +
		"{.spec.seLinuxMount} {.spec.requiresRepublish} {.spec.volumeLifecycleModes[*]}"
	const want = "false true File false false Persistent Ephemeral"
	if got := c.get("csidriver/"+driverName, spec); got != want {
		c.t.Errorf("attachRequired, storageCapacity, fsGroupPolicy, seLinuxMount, requiresRepublish and"+
			" volumeLifecycleModes are %s", got)
	}
}

// checkVolume checks claim and PersistentVolume after they are bound, and returns the name of the latter.
func (c *cluster) checkVolume(claim string) string {
	c.t.Helper()
	const annotated = `{.metadata.uid} {.metadata.annotations.volume\.kubernetes\.io/storage-provisioner} ` +
		`{.metadata.annotations.volume\.kubernetes\.io/selected-node} {.status.phase}`
	uid, rest, _ := strings.Cut(c.get("pvc/"+claim, annotated), " ")
	if rest != driverName+" "+c.node+" Bound" {
		c.t.Errorf("provisioner, node and phase of the claim are %q", rest)
	}

	pv := "pvc-" + uid
	for path, want := range map[string]string{
		"{.spec.claimRef.uid}": uid,
		"{.spec.csi.driver}":   driverName,
		"{.spec.nodeAffinity.required.nodeSelectorTerms[*].matchExpressions[*].values[*]}": c.node,
		`{.metadata.annotations.pv\.kubernetes\.io/provisioned-by}`:                        driverName,
	} {
		c.awaitField("pv/"+pv, path, want)
	}
	for _, finalizer := range []string{
		"external-provisioner.volume.kubernetes.io/finalizer", "kubernetes.io/pv-protection",
	} {
		if got := c.get("pv/"+pv, "{.metadata.finalizers}"); !strings.Contains(got, finalizer) {
			c.t.Errorf("the volume's finalizers are %s, want %s", got, finalizer)
		}
	}

	if all := c.kubectl("get", "volumeattachments", "-o", "name"); all != "" {
		c.t.Errorf("volumes were attached: %s", all)
	}
	return pv
}

// checkMounts checks that a volume is staged once, and published for so many pods.
func (c *cluster) checkMounts(pv string, pods int) {
	c.t.Helper()
	handle := c.get("pv/"+pv, "{.spec.csi.volumeHandle}")
	staged := c.onNode("", "grep -c '/kubernetes.io/csi/%s/%x/globalmount ' /proc/self/mountinfo || true",
		driverName, sha256.Sum256([]byte(handle)))
	if strings.TrimSpace(staged) != "1" {
		c.t.Errorf("volume %s is staged %s times", handle, staged)
	}
	if mounts := c.mountsOf(pv); len(mounts) != pods {
		c.t.Errorf("volume %s is published %d times, want %d: %q", pv, len(mounts), pods, mounts)
	}
}

// growAndRecover has a claim in use grow, ask for more than there is, and ask for less than that again.
func (c *cluster) growAndRecover(claim string) {
	c.t.Helper()
	c.request(claim, "128Mi")
	c.awaitField("pvc/"+claim, "{.status.capacity.storage}", "128Mi")

	c.request(claim, "1Pi")
	c.awaitField("pvc/"+claim, "{.status.allocatedResourceStatuses.storage}", "ControllerResizeInfeasible")

	c.request(claim, "160Mi")
	c.awaitField("pvc/"+claim, "{.status.capacity.storage} {.status.allocatedResourceStatuses}", "160Mi ")
}

// request has a claim ask for another size.
func (c *cluster) request(claim, size string) {
	c.t.Helper()
	const patch = `{"spec": {"resources": {"requests": {"storage": %q}}}}`
	c.kubectl("patch", "pvc", claim, "-p", fmt.Sprintf(patch, size))
}

// deleteInUse deletes a claim that pods use: both stay until the last of them is gone.
func (c *cluster) deleteInUse(claim, pv, pod string) {
	c.t.Helper()
	c.kubectl("delete", "pvc", claim, "--wait=false")
	c.kubectl("exec", pod, "--", "sh", "-c", "echo more >/data/file && sync")
	since, phase, _ := strings.Cut(c.get("pvc/"+claim, "{.metadata.deletionTimestamp} {.status.phase}"), " ")
	if since == "" || phase != "Bound" {
		c.t.Errorf("a claim in use is deleted since %q and %s", since, phase)
	}

	// The directory is gone, too: that is looked at after each test.
	c.kubectl("delete", "pods", "--all", "--wait")
	c.awaitGone("pvc/"+claim, "pv/"+pv)
}

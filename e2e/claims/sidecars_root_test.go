package claims

import (
	"strings"
	"testing"
)

// sidecars starts upstream's for the driver of a node, as its DaemonSet would.
func (n *node) sidecars() {
	n.t.Helper()
	n.provisioner()
	n.sidecar("csi-resizer")
	n.sidecar("csi-snapshotter", "--node-deployment")
}

func (n *node) provisioner() {
	n.t.Helper()
	n.sidecar("csi-provisioner", "--node-deployment", "--strict-topology", "--immediate-topology=false",
		"--extra-create-metadata")
}

func (n *node) sidecar(name string, more ...string) {
	n.t.Helper()
	args := append([]string{"--csi-address=" + n.socket(), "--kubeconfig=" + n.kubeconfig}, more...)
	n.start(name, []string{"NODE_NAME=" + n.name}, args...)
}

// TestUpstreamsSidecarsActForTheDriver has external-provisioner, external-resizer and csi-snapshotter do what
// trivet-csi does itself when its controllers run: here none does, and nothing is done twice.
func TestUpstreamsSidecarsActForTheDriver(t *testing.T) {
	p := open(t)
	n := p.node("node-a", append(p.provisioning(), "--controllers=none"))
	p.start("snapshot-controller", nil, "--kubeconfig="+p.kubeconfig, "--leader-election=false",
		"--enable-distributed-snapshotting")
	n.sidecars()

	n.claim("data", "")
	pv, data := n.bound("data")
	n.write(data, "before")
	writers := p.kubectl("get", "pv", pv, "--show-managed-fields", "-o",
		"jsonpath={.metadata.managedFields[*].manager}")
	if !strings.Contains(writers, "csi-provisioner") || strings.Contains(writers, "trivet-csi") {
		t.Errorf("it was written by %s, not by upstream's alone", writers)
	}

	p.snapshot()
	n.write(data, "after")
	n.claim("restored", ofSnapshot)
	n.claim("cloned", `"dataSource": {"kind": "PersistentVolumeClaim", "name": "data"},`)
	for claim, want := range map[string]string{"restored": "before", "cloned": "after"} {
		_, handle := n.bound(claim)
		n.checkRead(handle, want)
	}

	// Each call had one effect, and nobody else publishes capacity.
	n.awaitHolds(4)
	if got := p.kubectl("get", "csistoragecapacities", "-A", "-o", "name"); got != "" {
		t.Errorf("capacity %s", got)
	}

	p.kubectl("patch", "pvc", "data", "-p", `{"spec": {"resources": {"requests": {"storage": "128Mi"}}}}`)
	p.await("pvc/data", "{.status.capacity.storage}", "128Mi")

	p.kubectl("delete", "volumesnapshot,pvc", "--all", timeout)
	p.awaitNone("pv,volumesnapshotcontents")
	n.awaitHolds(0)
}

// TestClaimsOfTwoNodesGrowBesideUpstreamsProvisioner has external-provisioner make the volumes and trivet-csi
// enlarge them: external-resizer has no mode for drivers of several nodes.
func TestClaimsOfTwoNodesGrowBesideUpstreamsProvisioner(t *testing.T) {
	p := open(t)
	flags := append(p.provisioning(), "--controllers=resize,modify,snapshot")
	nodes := []*node{p.node("node-a", flags), p.node("node-b", flags)}
	p.start("snapshot-controller", nil, "--kubeconfig="+p.kubeconfig, "--leader-election=false",
		"--enable-distributed-snapshotting")
	for _, n := range nodes {
		n.provisioner()
		n.claim("of-"+n.name, "")
	}

	for _, n := range nodes {
		claim := "of-" + n.name
		pv, handle := n.bound(claim)
		n.write(handle, n.name)
		by := p.kubectl("get", "pv", pv, "--show-managed-fields", "-o",
			"jsonpath={.metadata.managedFields[*].manager}")
		if !strings.Contains(by, "csi-provisioner") || strings.Contains(by, "trivet-csi") {
			t.Errorf("%s was written by %s, not by upstream's alone", pv, by)
		}

		p.kubectl("patch", "pvc", claim, "-p",
			`{"spec": {"resources": {"requests": {"storage": "128Mi"}}}}`)
		p.await("pvc/"+claim, "{.status.capacity.storage}", "128Mi")
		n.checkRead(handle, n.name)
	}

	p.kubectl("delete", "pvc", "--all", timeout)
	p.awaitNone("pv")
	for _, n := range nodes {
		n.awaitHolds(0)
	}
}

// snapshot makes a snapshot of the claim data.
func (p *plane) snapshot() {
	p.t.Helper()
	p.apply(`{"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
		"metadata": {"name": "snap"}, "spec": {"volumeSnapshotClassName": "trivet",
		"source": {"persistentVolumeClaimName": "data"}}}`)
	p.await("volumesnapshot/snap", "{.status.readyToUse}", "true")
}

// ofSnapshot is the source of a claim.
const ofSnapshot = `"dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot",
	"name": "snap"},`

// TestClaimLeavesANodeThatDoesNotHaveItsSource has external-provisioner give a claim back to the scheduler:
// the driver of the node that was selected says that it does not have the snapshot.
func TestClaimLeavesANodeThatDoesNotHaveItsSource(t *testing.T) {
	p := open(t)
	a, b := p.node("node-a", nil), p.node("node-b", nil)
	p.start("snapshot-controller", nil, "--kubeconfig="+p.kubeconfig, "--leader-election=false",
		"--enable-distributed-snapshotting")
	a.sidecars()
	b.sidecars()

	a.claim("data", "")
	_, data := a.bound("data")
	a.write(data, "of node-a")
	p.snapshot()

	const selected = `{.metadata.annotations.volume\.kubernetes\.io/selected-node}`
	b.claim("restored", ofSnapshot)
	p.await("pvc/restored", selected, "")
	p.kubectl("annotate", "pvc", "restored", "volume.kubernetes.io/selected-node=node-a")
	_, restored := a.bound("restored")
	a.checkRead(restored, "of node-a")
	b.awaitHolds(0)

	p.kubectl("delete", "volumesnapshot,pvc", "--all", timeout)
	p.awaitNone("pv,volumesnapshotcontents")
	a.awaitHolds(0)
}

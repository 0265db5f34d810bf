package claims

import (
	"testing"
)

// TestAVolumeMovesToAnotherNode exports a volume on one node and imports it on another, whose claim has it by
// the PersistentVolume that the import prints.
func TestAVolumeMovesToAnotherNode(t *testing.T) {
	p := open(t)
	a, b := p.node("node-a", p.provisioning()), p.node("node-b", p.provisioning())
	a.claim("data", "")
	_, handle := a.bound("data")
	a.write(handle, "moved")

	from, to := a.verb("export", handle), b.verb("import", "--name=moved")
	stream, err := from.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	to.Stdin = stream
	if err := from.Start(); err != nil {
		t.Fatal(err)
	}
	printed, errTo := output(to)
	if err := from.Wait(); err != nil || errTo != nil {
		t.Fatalf("export: %v, import: %v", err, errTo)
	}

	p.apply(printed)
	p.apply(`{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "moved"}, "spec": {
		"storageClassName": "", "volumeName": "moved", "accessModes": ["ReadWriteOnce"],
		"resources": {"requests": {"storage": "64Mi"}}}}`)
	pv, moved := b.bound("moved")
	const nodes = "{.spec.nodeAffinity.required.nodeSelectorTerms[*].matchExpressions[*].values[*]}"
	p.await("pv/"+pv, nodes, "node-b")
	b.checkRead(moved, "moved")

	// The old one goes, the new one is the driver's as if it had made it.
	p.kubectl("delete", "pvc", "data", timeout)
	a.awaitHolds(0)
	b.checkRead(moved, "moved")
	p.kubectl("annotate", "pv", pv, "pv.kubernetes.io/provisioned-by="+driverName)
	p.kubectl("patch", "pv", pv, "-p", `{"spec": {"persistentVolumeReclaimPolicy": "Delete"}}`)
	p.kubectl("delete", "pvc", "moved", timeout)
	p.awaitNone("pv")
	b.awaitHolds(0)
}

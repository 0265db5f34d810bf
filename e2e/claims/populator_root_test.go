package claims

import (
	"fmt"
	"testing"
)

// TestAPopulatorFillsAVolume does what a populator of volumes does, as with upstream's library: the claim
// that names a kind of its own is left alone by the driver; one without a source is made beside it, filled,
// and its PersistentVolume handed over. The content stays when the claim that it was made for is deleted.
func TestAPopulatorFillsAVolume(t *testing.T) {
	p := open(t)
	n := p.node("node-a", p.provisioning())
	n.claim("wanted", `"dataSourceRef": {"apiGroup": "example.org", "kind": "Greeting", "name": "hello"},`)
	n.claim("helper", "")
	pv, handle := n.bound("helper")
	n.write(handle, "hello")
	n.awaitHolds(1)
	p.await("pvc/wanted", "{.status.phase}", "Pending")

	uid := p.kubectl("get", "pvc", "wanted", "-o", "jsonpath={.metadata.uid}")
	version := p.kubectl("get", "pvc", "wanted", "-o", "jsonpath={.metadata.resourceVersion}")
	p.kubectl("patch", "pv", pv, "-p", fmt.Sprintf(`{"spec": {"claimRef": {"apiVersion": "v1",
		"kind": "PersistentVolumeClaim", "namespace": "default", "name": "wanted", "uid": %q,
		"resourceVersion": %q}}}`, uid, version))
	if got, _ := n.bound("wanted"); got != pv {
		t.Errorf("the claim has %s, not the volume %s that was filled for it", got, pv)
	}

	// The claim that helped has no volume any more, and takes none with it.
	p.await("pvc/helper", "{.status.phase}", "Lost")
	p.kubectl("delete", "pvc", "helper", timeout)
	n.claim("later", "")
	_, later := n.bound("later")
	n.awaitHolds(2)
	n.checkRead(handle, "hello")

	p.kubectl("delete", "pvc", "wanted", timeout)
	n.awaitHolds(1)
	n.write(later, "still here")
	p.kubectl("delete", "pvc", "later", timeout)
	p.awaitNone("pv")
	n.awaitHolds(0)
}

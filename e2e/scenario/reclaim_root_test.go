package scenario

import (
	"strings"
	"testing"
	"time"
)

// TestWhatBecomesOfAVolumeFollowsItsPolicy has a volume that is retained and used again, one whose object is
// deleted before its claim, and one that belongs to a pod.
func TestWhatBecomesOfAVolumeFollowsItsPolicy(t *testing.T) {
	c := open(t)
	template := object{"spec": wish{}.claim()["spec"]}
	c.applyAll(
		wish{name: "retained", class: "trivet-retain"}.claim(), on(c.node, user("retained", "retained")),
		wish{name: "early"}.claim(), on(c.node, user("early", "early")),
		podWith("owner", object{"ephemeral": object{"volumeClaimTemplate": template}}),
	)
	c.awaitReady(2*time.Minute, "retained", "early", "owner")
	c.kubectl("exec", "retained", "--", "sh", "-c", "echo kept >/data/file; sync")
	retained, early := c.get("pvc/retained", "{.spec.volumeName}"), c.get("pvc/early", "{.spec.volumeName}")
	owned := c.get("pvc/owner-data", "{.spec.volumeName}")
	if got := c.get("pvc/owner-data", "{.metadata.ownerReferences[*].name}"); got != "owner" {
		t.Errorf("the claim of a pod's own volume is owned by %q", got)
	}

	// The object waits for the claim, and then for the content to be deleted.
	c.kubectl("delete", "pv", early, "--wait=false")
	c.kubectl("exec", "early", "--", "sh", "-c", "echo more >/data/file && sync")
	if phase := c.get("pv/"+early, "{.status.phase}"); phase != "Bound" {
		t.Errorf("a volume in use that is to be deleted is %s", phase)
	}

	c.kubectl("delete", "pods", "--all", "--wait")
	c.kubectl("delete", "pvc", "early", "retained", "--wait")
	c.awaitGone("pv/"+early, "pvc/owner-data", "pv/"+owned)
	c.bindAgain(retained)
}

// bindAgain has another claim have a volume that was retained, with what is in it, and deletes both.
func (c *cluster) bindAgain(pv string) {
	c.t.Helper()
	c.awaitField("pv/"+pv, "{.status.phase}", "Released")
	c.kubectl("patch", "pv", pv, "-p", `{"spec": {"claimRef": null}}`)
	c.awaitField("pv/"+pv, "{.status.phase}", "Available")
	c.applyAll(wish{name: "again", class: "trivet-retain", volume: pv}.claim(), user("again", "again"))
	c.awaitReady(2*time.Minute, "again")
	if got := c.kubectl("exec", "again", "--", "cat", "/data/file"); strings.TrimSpace(got) != "kept" {
		c.t.Errorf("the volume that was retained has %q", got)
	}

	c.kubectl("patch", "pv", pv, "-p", `{"spec": {"persistentVolumeReclaimPolicy": "Delete"}}`)
	c.kubectl("delete", "pod/again", "pvc/again", "--wait")
	c.awaitGone("pv/" + pv)
}

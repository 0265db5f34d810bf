package scenario

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestDriverKilledWhileVolumesAreMade kills the driver of a node while claims come and go. A pod's volume
// stays as it is, what is wanted is made, and what is not wanted any more is not left.
func TestDriverKilledWhileVolumesAreMade(t *testing.T) {
	c := open(t)
	c.driverRuns()
	c.applyAll(wish{name: "kept"}.claim(), on(c.node, user("kept", "kept")))
	c.awaitReady(2*time.Minute, "kept")
	c.kubectl("exec", "kept", "--", "sh", "-c", "echo there >/data/file; sync")
	pv := c.get("pvc/kept", "{.spec.volumeName}")
	mounts := c.mountsOf(pv)

	// The pod is deleted while its claim waits for its volume: the claim keeps its node.
	c.do("kill", c.node, "trivet-csi")
	c.applyAll(wish{name: "left"}.claim(), on(c.node, user("left", "left")))
	c.awaitField("pvc/left", selected, c.node)
	c.kubectl("delete", "pod", "left", "--wait")
	if got := c.kubectl("exec", "kept", "--", "cat", "/data/file"); got != "there\n" {
		t.Errorf("without its driver the volume has %q", got)
	}

	// Claims are deleted while their volumes are made, and so is the driver.
	c.makeAndForget(12)
	c.awaitBound("left")
	c.eventually(time.Minute, "what was made for nobody is gone", func() error {
		left := c.get("pv", `{range .items[*]}{.spec.claimRef.namespace}/{.spec.claimRef.name} {end}`)
		mine := slices.DeleteFunc(strings.Fields(left), func(name string) bool {
			return !strings.HasPrefix(name, c.namespace+"/") || strings.HasSuffix(name, "/kept") ||
				strings.HasSuffix(name, "/left")
		})
		if len(mine) > 0 {
			return errors.New(strings.Join(mine, ", "))
		}
		return nil
	})

	c.awaitDriver(true)
	if now := c.mountsOf(pv); !slices.Equal(now, mounts) {
		t.Errorf("the mounts of a pod were %q, and are %q", mounts, now)
	}
}

// makeAndForget starts the driver, which finds claims that wait for it, kills it while it serves them, and
// deletes the claims.
func (c *cluster) makeAndForget(n int) {
	c.t.Helper()
	var claims []object
	names := []string{"delete", "--wait=false"}
	for i := range n {
		w := wish{name: fmt.Sprint("gone-", i), selected: c.node}
		claims = append(claims, w.claim())
		names = append(names, "pvc/"+w.name)
	}

	c.applyAll(claims...)
	c.do("start", c.node, "trivet-csi")
	c.aMoment(time.Second)
	c.do("kill", c.node, "trivet-csi")
	c.kubectl(names...)
	c.do("start", c.node, "trivet-csi")
}

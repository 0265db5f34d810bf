package scenario

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestPodsAreKeptFromNodesThatCannotHaveTheirVolumes has a node whose driver is not there, and one whose
// driver says that the node may have two volumes.
func TestPodsAreKeptFromNodesThatCannotHaveTheirVolumes(t *testing.T) {
	c := open(t)
	c.driverRuns()
	const wants = `{"spec": {"preventPodSchedulingIfMissing": %t}}`
	c.kubectl("patch", "csidriver", driverName, "-p", fmt.Sprintf(wants, true))
	t.Cleanup(func() { c.kubectl("patch", "csidriver", driverName, "-p", fmt.Sprintf(wants, false)) })

	// One that is stopped takes its sockets along, and the agent its entry.
	argv := c.onNode("", `tr '\0' '\n' </proc/$(pidof trivet-csi)/cmdline`)
	c.do("stop", c.node, "trivet-csi")
	c.awaitDriver(false)
	for _, name := range []string{"one", "two", "three"} {
		c.applyAll(wish{name: name}.claim())
	}
	c.applyAll(on(c.node, user("one", "one")))
	c.awaitUnschedulable("one", "CSI driver is not installed on the node")

	c.startWithMost(2, strings.Split(strings.TrimSpace(argv), "\n"))
	c.awaitDriver(true)
	c.awaitReady(2*time.Minute, "one")
	c.applyAll(on(c.node, user("two", "two")))
	c.awaitReady(2*time.Minute, "two")
	c.applyAll(on(c.node, user("three", "three")))
	c.awaitUnschedulable("three", "exceed max volume count")

	// Pods that share a volume count it once, and what goes makes room.
	c.applyAll(on(c.node, user("guest", "one")))
	c.awaitReady(2*time.Minute, "guest")
	c.kubectl("delete", "pod", "two", "--wait")
	c.awaitReady(2*time.Minute, "three")
}

// startWithMost starts the driver of the test's node by its command line, for so many volumes, until the test
// ends.
func (c *cluster) startWithMost(most int, argv []string) {
	c.t.Helper()
	for i, arg := range argv {
		argv[i] = "'" + arg + "'"
	}
	c.onNode("", "setsid %s --volumes-most=%d >/dev/null 2>&1 </dev/null &", strings.Join(argv, " "), most)
	c.t.Cleanup(func() {
		c.onNode("", "kill $(pidof trivet-csi); while pidof trivet-csi; do sleep 0.1; done")
	})
}

package scenario

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// allNodes are the names of the cluster's nodes.
func (c *cluster) allNodes() []string {
	c.t.Helper()
	data, err := os.ReadFile(filepath.Join(c.dir, "cluster.json"))
	if err != nil {
		c.t.Fatal(err)
	}

	var plan struct{ Nodes []struct{ Name string } }
	if err := json.Unmarshal(data, &plan); err != nil {
		c.t.Fatal(err)
	}

	var names []string
	for _, n := range plan.Nodes {
		names = append(names, n.Name)
	}

	return names
}

// TestResizeIsInTheGroupsAndTheStatus resizes on each node: the last one may have systemd, which sets limits
// again when it is reloaded.
func TestResizeIsInTheGroupsAndTheStatus(t *testing.T) {
	c := open(t)
	first, more, less := amount{50, 32}, amount{100, 48}, amount{40, 24}
	for _, c.node = range c.allNodes() {
		name := "on-" + c.node
		c.resizable(name, first, "NotRequired")
		c.awaitReady(time.Minute, name)
		count := c.notes(name, "count")
		for _, a := range []amount{more, less} {
			c.resize(name, a)
			c.awaitResized(name, a, 0)
		}

		c.awaitLines(count, 1)
		c.counted(name)
	}
}

// TestResizeWaitsForRoom has a pod that takes nearly all of a node.
func TestResizeWaitsForRoom(t *testing.T) {
	c := open(t)
	all := c.allocatableCPU()
	small, large := amount{50, 16}, amount{500, 16}
	c.resizable("hog", amount{all - 300, 16}, "NotRequired")
	for _, name := range []string{"first", "second"} {
		c.resizable(name, small, "NotRequired")
	}
	c.awaitReady(time.Minute, "hog", "first", "second")

	c.resize("first", large)
	c.awaitPending("first", "Deferred", "Node didn't have enough resource: cpu", small)

	// More than the node has is not even taken by the API server, which asks its Node.
	err := c.tryResize("second", amount{all + 1, 16})
	if err == nil || !strings.Contains(err.Error(), "node didn't have enough allocatable resources: cpu") {
		t.Errorf("resize to more than the node has: %v", err)
	}
	c.hasAllocated("second", small)

	// What is taken back is as if it had not been asked for.
	c.resize("second", large)
	c.awaitPending("second", "Deferred", "", small)
	c.resize("second", small)
	c.awaitResized("second", small, 0)

	c.kubectl("delete", "pod", "hog", "--wait=false")
	c.awaitResized("first", large, 0)
	c.neverRestarted("first", "second")
}

package podworker_test

import (
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/node/containergc"
	"github.com/trivet-node/trivet/node/podlog"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

// noEvents records nothing.
type noEvents struct{}

func (noEvents) Record(v1.ObjectReference, string, string, string) {}

// reclaimer is what removes the containers of a cluster's ended pods.
func (c *cluster) reclaimer(s *runtimetest.Server, root string) *containergc.Collector {
	c.t.Helper()
	conn, err := socket.Dial(s.Socket)
	if err != nil {
		c.t.Fatal(err)
	}

	c.t.Cleanup(func() { conn.Close() })

	return containergc.New(containergc.Config{
		Policy:  containergc.Policy{PerContainer: 1, Total: -1},
		Node:    "node",
		Runtime: runtime.New(conn, conn, slog.New(slog.DiscardHandler)),
		Pods:    c,
		Logs:    podlog.Logs{Root: filepath.Join(root, "logs"), Links: root},
		Events:  noEvents{},
		Log:     slog.New(slog.DiscardHandler),
	})
}

func TestAnEndedPodWhoseContainersAreReclaimedStaysAsItIs(t *testing.T) {
	for _, restart := range []bool{false, true} {
		s, c := runtimetest.Start(t), newCluster(t)
		root := t.TempDir()
		stop := c.start(s, root)
		pod := newPod(v1.RestartPolicyNever, v1.Container{Name: "app", Image: "exit:3"})
		running := newPod(v1.RestartPolicyNever, v1.Container{Name: "app", Image: "run"})
		running.UID = "running"
		c.put(pod)
		c.put(running)
		c.waitFor(running.UID, "ready", ready)
		before := c.waitFor(pod.UID, "failed", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed })

		gc := c.reclaimer(s, root)
		if err := gc.Collect(t.Context()); err != nil || len(s.Left()) != 4 {
			t.Fatalf("before space is needed: left %q, %v", s.Left(), err)
		}
		if err := gc.ReclaimContainers(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := s.Left(); len(left) != 2 {
			t.Errorf("left %q, want what runs", left)
		}

		if restart {
			stop()
			c.start(s, root)
			c.waitFor(running.UID, "ready", ready)
		}

		c.mu.Lock()
		after := c.pods[pod.UID]
		c.mu.Unlock()
		if diff := cmp.Diff(before.Status, after.Status); diff != "" {
			t.Errorf("the status has changed: %s", diff)
		}

		c.remove(pod.UID, 0)
		c.waitUntilForgotten(pod.UID)
		if slices.Contains(s.Calls(), "CreateContainer app/1") {
			t.Error("the container was started again")
		}
	}
}

package podworker_test

import (
	"context"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

func TestAContainerIsRestartedWhileItsVolumesCannotBeRefreshed(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)
	c.mu.Lock()
	c.objects = context.DeadlineExceeded
	before := c.setups
	c.mu.Unlock()
	c.changedObject(pod.UID)
	c.waitFor(pod.UID, "set up again, in vain", func(*v1.Pod) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.setups > before
	})
	s.Exit("app", 1)
	c.waitFor(pod.UID, "restarted", func(p *v1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
}

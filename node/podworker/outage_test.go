package podworker_test

import (
	"context"
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/queue"
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
	c.look(pod.UID, queue.ObjectChanged)
	c.waitFor(pod.UID, "set up again, in vain", func(*v1.Pod) bool {
		c.mu.Lock()
		defer c.mu.Unlock()

		return c.setups > before
	})

	s.Exit("app", 1)
	c.waitFor(
		pod.UID,
		"restarted",
		func(p *v1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1 },
	)
}

func TestPodsLiveOnWhileTheirStatusCannotBeSent(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.cut = make(chan struct{})
	c.start(s, t.TempDir())
	for i := range 2 * lookers {
		name := fmt.Sprint("silent", i)
		pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: name, Image: "run"})
		pod.UID = types.UID(name)
		c.put(pod)
		c.waitForEvent(pod.UID, "Started "+name)
	}

	// What happens while a patch is on its way is reported after it.
	s.Exit("silent0", 3)
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "late", Image: "run"})
	c.put(pod)
	c.waitForEvent(pod.UID, "Started late")
	c.mu.Lock()
	close(c.cut)
	c.cut = nil
	c.mu.Unlock()
	c.waitFor(
		"silent0",
		"restarted",
		func(p *v1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1 },
	)

	c.waitFor(pod.UID, "ready", ready)
}

// The watch reports what the answer to a patch has shown before: then it is old.
func TestADeletionThatTheAnswerToAPatchShowsIsSeen(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
	c.put(pod)
	next := c.waitFor(pod.UID, "ready", ready).DeepCopy()
	c.mu.Lock()
	c.cut = make(chan struct{})
	before := c.patches
	c.mu.Unlock()
	next.Generation++
	c.put(next)
	c.waitFor(pod.UID, "being patched", func(*v1.Pod) bool {
		c.mu.Lock()
		defer c.mu.Unlock()

		return c.patches > before
	})

	// For the watch it will be old.
	c.mu.Lock()
	c.queue = nil
	c.mu.Unlock()
	c.remove(pod.UID, 30)
	close(c.cut)
	c.mu.Lock()
	c.cut = nil
	c.mu.Unlock()
	c.waitFor(pod.UID, "ended", func(p *v1.Pod) bool {
		return p == nil || p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed
	})
}

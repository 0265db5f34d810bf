package podworker_test

import (
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

// change puts a new generation of the pod and waits until the worker has seen it.
func (c *cluster) change(pod *v1.Pod, mod func(*v1.PodSpec)) {
	c.mu.Lock()
	p := c.pods[pod.UID].DeepCopy()
	c.mu.Unlock()
	p.Generation++
	mod(&p.Spec)
	c.put(p)
	c.waitFor(pod.UID, "seen as changed", func(now *v1.Pod) bool { return now.Status.ObservedGeneration == p.Generation })
}

func TestAnImageThatIsChangedWhileItsContainerWaitsIsTheOneThatRuns(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "old"})
	pod.Spec.InitContainers = []v1.Container{{Name: "first", Image: "run"}}
	c.put(pod)
	c.waitForEvent(pod.UID, "Pulled app")
	c.waitForEvent(pod.UID, "Started first")
	c.change(pod, func(s *v1.PodSpec) { s.Containers[0].Image = "new" })
	s.Exit("first", 0)
	p := c.waitFor(pod.UID, "ready", ready)
	if got := p.Status.ContainerStatuses[0].ImageID; got != "new" {
		t.Errorf("image %q runs, want the new one", got)
	}
}

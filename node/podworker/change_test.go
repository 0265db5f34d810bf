package podworker_test

import (
	"slices"
	"strings"
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
	c.waitFor(
		pod.UID,
		"seen as changed",
		func(now *v1.Pod) bool { return now.Status.ObservedGeneration == p.Generation },
	)
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
	if got := p.Status.ContainerStatuses[0].ImageID; got != "id-new:latest" {
		t.Errorf("image %q runs, want the new one", got)
	}
}

func TestACrashOfTheOldImageDoesNotHoldBackTheNewOne(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "exit:1"})
	c.put(pod)
	c.waitForEvent(pod.UID, "BackOff app")
	c.change(pod, func(s *v1.PodSpec) { s.Containers[0].Image = "run" })
	c.waitFor(pod.UID, "ready", ready)
	s.Exit("app", 1)
	p := c.waitFor(
		pod.UID,
		"backing off",
		func(p *v1.Pod) bool { return p.Status.ContainerStatuses[0].State.Waiting != nil },
	)
	if got := p.Status.ContainerStatuses[0].State.Waiting.Message; !strings.HasPrefix(got, "back-off 10s") {
		t.Errorf("the new image's first crash: %s", got)
	}
}

func TestAVolumeThatOnlyALaterContainerUsesIsMounted(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
	pod.Spec.Volumes = []v1.Volume{{Name: "data"}}
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)
	c.change(pod, func(s *v1.PodSpec) {
		debugger := v1.EphemeralContainerCommon{
			Name:         "debug",
			Image:        "run",
			VolumeMounts: []v1.VolumeMount{{Name: "data", MountPath: "/data"}},
		}

		s.EphemeralContainers = []v1.EphemeralContainer{{EphemeralContainerCommon: debugger}}
	})

	c.waitFor(pod.UID, "joined by the debugger", func(p *v1.Pod) bool {
		return len(p.Status.EphemeralContainerStatuses) == 1 &&
			p.Status.EphemeralContainerStatuses[0].State.Running != nil
	})

	c.mu.Lock()
	defer c.mu.Unlock()

	if slices.Contains(c.events, "Failed debug") {
		t.Error("it was started before its volume was mounted")
	}
}

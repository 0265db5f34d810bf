package podworker_test

import (
	"errors"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

func cpu(amount string) v1.ResourceRequirements {
	return v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse(amount)}}
}

// resized reports whether the API shows that the first container of a pod has so much CPU, and no resize.
func resized(amount string) func(*v1.Pod) bool {
	return func(p *v1.Pod) bool {
		if p == nil || len(p.Status.ContainerStatuses) == 0 || p.Status.ObservedGeneration < p.Generation {
			return false
		}

		s := p.Status.ContainerStatuses[0]
		want := resource.MustParse(amount)
		return s.Resources != nil && s.Resources.Requests.Cpu().Equal(want) &&
			s.AllocatedResources.Cpu().Equal(want) && !resizing(p)
	}
}

func resizing(p *v1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c v1.PodCondition) bool {
		return c.Type == v1.PodResizePending || c.Type == v1.PodResizeInProgress
	})
}

func (c *cluster) resize(pod *v1.Pod, amount string) {
	c.change(pod, func(s *v1.PodSpec) { s.Containers[0].Resources = cpu(amount) })
}

func TestAContainerIsResizedInPlace(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run", Resources: cpu("1")})
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)

	c.resize(pod, "2")
	p := c.waitFor(pod.UID, "resized", resized("2"))
	if got := p.Status.ContainerStatuses[0].RestartCount; got != 0 {
		t.Errorf("%d restarts", got)
	}

	c.waitForEvent(pod.UID, "ResizeStarted")
	c.waitForEvent(pod.UID, "ResizeCompleted")
}

func TestAContainerIsRestartedToBeResizedIfItsPolicySaysSo(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	pod := newPod(v1.RestartPolicyOnFailure, v1.Container{
		Name:      "app",
		Image:     "run",
		Resources: cpu("1"),
		ResizePolicy: []v1.ContainerResizePolicy{{
			ResourceName:  v1.ResourceCPU,
			RestartPolicy: v1.RestartContainer,
		}},
	})

	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)
	c.resize(pod, "2")
	p := c.waitFor(pod.UID, "resized", func(p *v1.Pod) bool { return resized("2")(p) && ready(p) })
	if got := p.Status.ContainerStatuses[0].RestartCount; got != 1 {
		t.Errorf("%d restarts", got)
	}
}

func TestAnAgentThatIsKilledInAResizeIsContinued(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	root := t.TempDir()
	stop := c.start(s, root)
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run", Resources: cpu("1")})
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)

	// It is given, and cannot be put in force.
	s.FailOn("UpdateContainerResources", errors.New("not now"))
	c.resize(pod, "2")
	c.waitFor(pod.UID, "in error", func(p *v1.Pod) bool {
		return slices.ContainsFunc(p.Status.Conditions, func(x v1.PodCondition) bool {
			return x.Type == v1.PodResizeInProgress && x.Reason == v1.PodReasonError
		})
	})
	c.waitForEvent(pod.UID, "ResizeError")
	stop()

	s.FailOn("UpdateContainerResources", nil)
	c.start(s, root)
	c.waitFor(pod.UID, "resized", resized("2"))
}

func TestAResizeWaitsForRoom(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	full := true
	c.admit = func(pod *v1.Pod, _ []*v1.Pod) admit.Verdict {
		c.mu.Lock()
		defer c.mu.Unlock()
		if full && pod.UID == "uid-1" && pod.Generation > 1 {
			return admit.Verdict{Reason: "OutOfcpu", Message: "Node didn't have enough resource: cpu"}
		}
		return admit.Verdict{}
	}

	c.start(s, t.TempDir())
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run", Resources: cpu("1")})
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)
	c.resize(pod, "2")

	p := c.waitFor(pod.UID, "deferred", resizing)
	last := p.Status.Conditions[len(p.Status.Conditions)-1]
	at := slices.IndexFunc(p.Status.Conditions, func(x v1.PodCondition) bool {
		return x.Type == v1.PodResizePending
	})
	if at >= 0 {
		last = p.Status.Conditions[at]
	}
	if last.Reason != v1.PodReasonDeferred || last.ObservedGeneration != 2 ||
		last.Message != "Node didn't have enough resource: cpu" {
		t.Errorf("%+v", last)
	}

	// Another version leads to another decision.
	c.mu.Lock()
	full = false
	c.mu.Unlock()
	c.resize(pod, "3")
	c.waitFor(pod.UID, "resized", resized("3"))
}

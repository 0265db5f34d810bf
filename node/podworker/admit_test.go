package podworker_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

// admitOn decides as the agent does on a node that has room for one CPU.
func admitOn(labels func() map[string]string) func(pod *v1.Pod, others []*v1.Pod) admit.Verdict {
	return func(pod *v1.Pod, others []*v1.Pod) admit.Verdict {
		node := admit.Node{
			Object:      &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}},
			Allocatable: v1.ResourceList{"cpu": resource.MustParse("1"), "pods": resource.MustParse("100")},
		}
		if labels != nil {
			node.Object.Labels = labels()
		}
		return admit.Check(node, pod, others)
	}
}

// sized is a pod of an age that requests CPUs.
func sized(uid types.UID, cpu string, age time.Duration) *v1.Pod {
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
	pod.UID, pod.Name = uid, string(uid)
	pod.CreationTimestamp = metav1.NewTime(time.Now().Add(-age))
	pod.Spec.Containers[0].Resources.Requests = v1.ResourceList{"cpu": resource.MustParse(cpu)}
	return pod
}

func failed(p *v1.Pod) bool { return p != nil && p.Status.Phase == v1.PodFailed }

func TestAPodThatIsRefusedFailsWithKubeletsWords(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.admit = admitOn(nil)
	c.start(s, t.TempDir())
	c.put(sized("big", "2", 0))
	p := c.waitFor("big", "failed", failed)
	if p.Status.Reason != "OutOfcpu" || p.Status.Message !=
		"Pod was rejected: Node didn't have enough resource: cpu, requested: 2000, used: 0, capacity: 1000" {
		t.Errorf("%q %q", p.Status.Reason, p.Status.Message)
	}
	c.waitForEvent("big", "OutOfcpu")
}

func TestTheOlderOfTwoPodsIsAdmitted(t *testing.T) {
	for range 5 {
		s, c := runtimetest.Start(t), newCluster(t)
		c.admit = admitOn(nil)
		// All are there before the worker is, the younger ones first.
		for i := range 5 {
			uid := types.UID(fmt.Sprintf("young-%d", i))
			c.put(sized(uid, "1", time.Duration(i)*time.Minute))
		}

		c.put(sized("old", "1", time.Hour))
		stop := c.start(s, t.TempDir())
		c.waitFor("old", "ready", ready)
		for i := range 5 {
			c.waitFor(types.UID(fmt.Sprintf("young-%d", i)), "failed", failed)
		}

		stop()
	}
}

func TestACriticalPodStartsWhenThoseInItsWayHaveEnded(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.admit = admitOn(nil)
	c.start(s, t.TempDir())
	c.put(sized("small", "200m", time.Hour))
	c.put(sized("victim", "800m", time.Hour))
	c.waitFor("small", "ready", ready)
	c.waitFor("victim", "ready", ready)

	important := sized("important", "800m", 0)
	important.Spec.Priority = new(int32(2_000_000_000))
	c.put(important)
	c.waitFor("important", "ready", ready)
	victim := c.waitFor("victim", "failed", failed)
	if victim.Status.Reason != "Preempting" ||
		victim.Status.Message != "Preempted in order to admit critical pod" {
		t.Errorf("%q %q", victim.Status.Reason, victim.Status.Message)
	}

	if !slices.ContainsFunc(victim.Status.Conditions, func(x v1.PodCondition) bool {
		return x.Type == v1.DisruptionTarget && x.Status == v1.ConditionTrue &&
			x.Reason == v1.PodReasonTerminationByKubelet
	}) {
		t.Errorf("conditions %+v", victim.Status.Conditions)
	}

	c.waitFor("small", "ready still", ready)
	c.waitForEvent("victim", "Preempting")

	// The victim had ended before the critical pod, whose sandbox is the last, began.
	calls := s.Calls()
	last := len(calls) - 1
	for last > 0 && calls[last] != "RunPodSandbox 0" {
		last--
	}

	if !slices.Contains(calls[:last], "StopContainer app/0 30") {
		t.Errorf("calls %q", calls)
	}
}

func TestAPodIsAdmittedByALabelThatWasNotKnownYet(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	var known atomic.Bool
	c.refresh = func(context.Context) { known.Store(true) }
	c.admit = admitOn(func() map[string]string {
		if known.Load() {
			return map[string]string{"zone": "a"}
		}

		return nil
	})

	c.start(s, t.TempDir())
	pod := sized("uid-1", "1", 0)
	pod.Spec.NodeSelector = map[string]string{"zone": "a"}
	c.put(pod)
	c.waitFor("uid-1", "ready", ready)

	other := sized("uid-2", "0", 0)
	other.Spec.NodeSelector = map[string]string{"zone": "b"}
	c.put(other)
	if p := c.waitFor("uid-2", "failed", failed); p.Status.Reason != "NodeAffinity" {
		t.Errorf("%q %q", p.Status.Reason, p.Status.Message)
	}
}

func TestWhatRunsIsNotAskedAboutAgain(t *testing.T) {
	s := runtimetest.Start(t)
	c := newCluster(t)
	root := t.TempDir()
	stop := c.start(s, root)
	c.put(sized("uid-1", "1", 0))
	c.waitFor("uid-1", "ready", ready)
	stop()

	// The agent was killed before it could report anything, and the node refuses everything by now.
	bare := sized("uid-1", "1", 0)
	c.mu.Lock()
	c.pods["uid-1"] = bare
	c.mu.Unlock()
	var asked atomic.Int32
	c.admit = func(*v1.Pod, []*v1.Pod) admit.Verdict {
		asked.Add(1)
		return admit.Verdict{Reason: "No", Message: "no"}
	}

	c.start(s, root)
	c.waitFor("uid-1", "ready again", ready)
	if asked.Load() != 0 {
		t.Errorf("asked %d times about a pod that runs", asked.Load())
	}
}

package admit

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// named is a pod of a quality of service: what it requests is what it may use at most if it is guaranteed.
func named(name, cpu string, guaranteed bool) *v1.Pod {
	list := v1.ResourceList{}
	if cpu != "" {
		list["cpu"], list["memory"] = resource.MustParse(cpu), resource.MustParse("10Mi")
	}
	pod := asking(list)
	pod.Name = name
	if guaranteed {
		pod.Spec.Containers[0].Resources.Limits = list
	}
	return pod
}

func TestACriticalPodPushesTheFewestAndLowestOut(t *testing.T) {
	critical := func(cpu string) *v1.Pod {
		pod := named("critical", cpu, false)
		pod.Spec.Priority = new(int32(systemCritical))
		return pod
	}

	for name, c := range map[string]struct {
		pod    *v1.Pod
		others []*v1.Pod
		want   []string
	}{
		"fits": {critical("1"), []*v1.Pod{named("a", "1", false)}, nil},
		"one is enough": {critical("1"), []*v1.Pod{named("a", "500m", false), named("b", "1", false),
			named("c", "500m", false)},
			[]string{"b"}},
		"burstable before guaranteed": {critical("1"),
			[]*v1.Pod{named("g", "1", true), named("b", "1", false)}, []string{"b"}},
		"guaranteed for the rest": {critical("2"),
			[]*v1.Pod{named("g", "1", true), named("b", "1", false)}, []string{"b", "g"}},
		"best effort for a place": {critical("100m"),
			[]*v1.Pod{named("e", "", false), named("b", "100m", false), named("g", "100m", true)},
			[]string{"e"}},
	} {
		got := Check(testNode(), c.pod, c.others)
		var victims []string
		for _, v := range got.Preempt {
			victims = append(victims, v.Name)
		}

		if got.Reason != "" || !slices.Equal(victims, c.want) {
			t.Errorf("%s: %q %q, victims %v, want %v", name, got.Reason, got.Message, victims, c.want)
		}
	}
}

func TestACriticalPodDoesNotPushItsLikeOut(t *testing.T) {
	pod, other := named("critical", "2", false), named("other", "1", false)
	pod.Spec.Priority, other.Spec.Priority = new(int32(systemCritical)), new(int32(systemCritical))
	got := Check(testNode(), pod, []*v1.Pod{other})
	if got.Reason != "UnexpectedAdmissionError" ||
		got.Message != "Unexpected error while attempting to recover from admission failure: "+
			"preemption: error finding a set of pods to preempt: "+
			"no set of running pods found to reclaim resources: [(res: cpu, q: 1000), ]" {
		t.Errorf("%+v", got)
	}
}

func TestACriticalPodOfAnotherNodePushesNobodyOut(t *testing.T) {
	pod := named("critical", "2", false)
	pod.Spec.Priority, pod.Spec.NodeSelector = new(int32(systemCritical)), map[string]string{"zone": "b"}
	if got := Check(testNode(), pod, []*v1.Pod{named("a", "1", false)}); got.Reason != NodeAffinity ||
		len(got.Preempt) > 0 {
		t.Errorf("%+v", got)
	}
}

func TestAnOrdinaryPodPushesNobodyOut(t *testing.T) {
	pod := named("important", "2", false)
	pod.Spec.Priority = new(int32(1_000_000_000))
	if got := Check(testNode(), pod, []*v1.Pod{named("a", "1", false)}); got.Reason != "OutOfcpu" ||
		len(got.Preempt) > 0 {
		t.Errorf("%+v", got)
	}
}

package swap

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/manifest"
)

const gibibyte = 1 << 30

// node has 8 GiB of memory and 4 GiB of swap.
var node = Policy{
	Bounded:  true,
	Limited:  true,
	Memory:   8 * gibibyte,
	Capacity: 4 * gibibyte,
}

// podOf returns a pod with one container that requests and may use so much memory; "" is nothing.
func podOf(request, limit string) *v1.Pod {
	list := func(amount string) v1.ResourceList {
		if amount == "" {
			return nil
		}
		return v1.ResourceList{v1.ResourceMemory: resource.MustParse(amount)}
	}
	return &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Resources: v1.ResourceRequirements{
		Requests: list(request),
		Limits:   list(limit),
	}}}}}
}

// with changes a burstable pod that may swap 512 MiB.
func with(change func(*v1.Pod)) *v1.Pod {
	pod := podOf("1Gi", "2Gi")
	change(pod)
	return pod
}

func TestSwapIsSharedByWhatIsRequested(t *testing.T) {
	behaviour := func(change func(*Policy)) Policy {
		p := node
		change(&p)
		return p
	}

	for name, c := range map[string]struct {
		policy Policy
		pod    *v1.Pod
		want   int64
	}{
		"burstable":               {node, podOf("1Gi", "2Gi"), gibibyte / 2},
		"without a limit":         {node, podOf("2Gi", ""), gibibyte},
		"all of the memory":       {node, podOf("8Gi", ""), 4 * gibibyte},
		"more than the machine":   {node, podOf("9Gi", ""), 0},
		"parts of bytes":          {Policy{true, true, 3, 2}, podOf("2", ""), 1},
		"best effort":             {node, podOf("", ""), 0},
		"beside one that may not": {node, with(addSidecar), gibibyte / 2},
		"a limit and no request":  {node, podOf("", "2Gi"), 0},
		"NoSwap":                  {behaviour(func(p *Policy) { p.Limited = false }), podOf("1Gi", "2Gi"), 0},
		"a kernel without limits": {behaviour(func(p *Policy) { p.Bounded = false }), podOf("1Gi", "2Gi"), 0},
		"no swap":                 {behaviour(func(p *Policy) { p.Capacity = 0 }), podOf("1Gi", "2Gi"), 0},
		"unknown memory":          {behaviour(func(p *Policy) { p.Memory = 0 }), podOf("1Gi", "2Gi"), 0},
		"important":               {node, with(priority(1000)), gibibyte / 2},
		"critical":                {node, with(priority(2_000_000_000)), 0},
		"static":                  {node, with(fromManifest), 0},
	} {
		if got := c.policy.Limit(c.pod, &c.pod.Spec.Containers[0]); got != c.want {
			t.Errorf("%s: %d bytes, want %d", name, got, c.want)
		}
	}
}

// addSidecar adds a container that requests all that it may use, to a pod that is burstable all the same.
func addSidecar(pod *v1.Pod) {
	pod.Spec.Containers = append(pod.Spec.Containers, podOf("1Gi", "1Gi").Spec.Containers[0])
}

func priority(n int32) func(*v1.Pod) {
	return func(pod *v1.Pod) { pod.Spec.Priority = &n }
}

func fromManifest(pod *v1.Pod) {
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, manifest.AnnotationSource, manifest.SourceFile)
}

func TestAContainerThatRequestsAllThatItMayUseDoesNotSwap(t *testing.T) {
	pod := with(addSidecar)
	if node.Allows(pod, &pod.Spec.Containers[1]) || node.Limit(pod, &pod.Spec.Containers[1]) != 0 {
		t.Error("it may swap")
	}
	if !node.Allows(pod, &pod.Spec.Containers[0]) {
		t.Error("the other one may not")
	}
}

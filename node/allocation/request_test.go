package allocation

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/swap"
)

// memory is a burstable pod that requests so much of 2 GiB.
func memory(request string, restart v1.ResourceResizeRestartPolicy) *v1.Pod {
	pod := pod("u", 1, "1")
	c := &pod.Spec.Containers[0]
	c.Resources.Requests[v1.ResourceMemory] = resource.MustParse(request)
	c.Resources.Limits = v1.ResourceList{v1.ResourceMemory: resource.MustParse("2Gi")}
	c.ResizePolicy = []v1.ContainerResizePolicy{
		{ResourceName: v1.ResourceCPU, RestartPolicy: v1.RestartContainer},
		{ResourceName: v1.ResourceMemory, RestartPolicy: restart},
	}
	return pod
}

func TestMemoryThatIsSwappedIsNotResizedInPlace(t *testing.T) {
	swaps := swap.Policy{Bounded: true, Limited: true}
	cpu := memory("1Gi", v1.NotRequired)
	cpu.Spec.Containers[0].Resources.Requests[v1.ResourceCPU] = resource.MustParse("2")

	const no, yes = v1.NotRequired, v1.RestartContainer
	for name, c := range map[string]struct {
		policy       swap.Policy
		given, asked *v1.Pod
		infeasible   bool
	}{
		"more":             {swaps, memory("1Gi", no), memory("1500Mi", no), true},
		"all":              {swaps, memory("1Gi", no), memory("2Gi", no), true},
		"none any more":    {swaps, memory("2Gi", no), memory("1Gi", no), true},
		"by a restart":     {swaps, memory("1Gi", yes), memory("1500Mi", no), false},
		"CPU":              {swaps, memory("1Gi", no), cpu, false},
		"without swap":     {swap.Policy{}, memory("1Gi", no), memory("1500Mi", no), false},
		"another spelling": {swaps, memory("1Gi", no), memory("1024Mi", no), false},
	} {
		request := &Request{Pod: c.asked, Given: c.given}
		label, message := Infeasible(request, Able{OfPods: true, Swap: c.policy})
		if (message != "") != c.infeasible || (label == "swap_limitation") != c.infeasible {
			t.Errorf("%s: %q, %q", name, label, message)
		}
	}
}

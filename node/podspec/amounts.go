package podspec

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/resource"
)

// Amounts are the resources of a container, or of a pod as a whole, that can be changed while it runs. CPU is
// in thousandths of a CPU, memory in bytes; 0 is none.
type Amounts struct {
	CPURequest    int64
	CPULimit      int64
	MemoryRequest int64
	MemoryLimit   int64
}

// AmountsOf returns the amounts of a container as they come into force: a limit of the pod as a whole is that
// of each container that has none itself.
func AmountsOf(pod *v1.Pod, c *v1.Container) Amounts {
	out := amounts(c.Resources.Requests, c.Resources.Limits)
	if pod.Spec.Resources == nil {
		return out
	}

	whole := amounts(nil, pod.Spec.Resources.Limits)
	if out.CPULimit == 0 {
		out.CPULimit = whole.CPULimit
	}
	if out.MemoryLimit == 0 {
		out.MemoryLimit = whole.MemoryLimit
	}

	return out
}

// WholeAmounts returns the amounts of a pod: its own, or the sum over its containers.
func WholeAmounts(pod *v1.Pod) Amounts {
	options := helpers.PodResourcesOptions{}
	return amounts(helpers.PodRequests(pod, options), helpers.PodLimits(pod, options))
}

func amounts(requests, limits v1.ResourceList) Amounts {
	return Amounts{
		CPURequest:    requests.Cpu().MilliValue(),
		CPULimit:      limits.Cpu().MilliValue(),
		MemoryRequest: requests.Memory().Value(),
		MemoryLimit:   limits.Memory().Value(),
	}
}

// amountsText is how amounts are written into annotations.
const amountsText = "cpu=%d/%d memory=%d/%d"

// String returns the amounts as ParseAmounts reads them: each request before its limit.
func (a Amounts) String() string {
	return fmt.Sprintf(amountsText, a.CPURequest, a.CPULimit, a.MemoryRequest, a.MemoryLimit)
}

// ParseAmounts reads what String has written. It reports false for any other text.
func ParseAmounts(text string) (a Amounts, ok bool) {
	_, err := fmt.Sscanf(text, amountsText, &a.CPURequest, &a.CPULimit, &a.MemoryRequest, &a.MemoryLimit)
	if err != nil || a.String() != text {
		return Amounts{}, false
	}
	return a, true
}

package criconfig

import (
	"math"

	v1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/resource"

	"github.com/trivet-node/trivet/node/manifest"
	"github.com/trivet-node/trivet/node/podspec"
)

// OOM scores (oom_score_adj): the kernel kills the higher ones first.
const (
	oomGuaranteed = -997
	oomBestEffort = 1000
)

// oomScore returns the oom_score_adj of a container by the quality of service of its pod: the less of the
// node's memory a burstable one requests, the sooner it is killed.
func oomScore(node Node, pod *v1.Pod, c *v1.Container) int64 {
	if critical(pod) {
		return oomGuaranteed
	}

	switch podspec.QOS(pod) {
	case v1.PodQOSGuaranteed:
		return oomGuaranteed
	case v1.PodQOSBestEffort:
		return oomBestEffort
	}

	if node.MemoryCapacity <= 0 {
		return 999
	}

	// A sidecar is not killed before the application that needs it.
	request := c.Resources.Requests.Memory().Value()
	if podspec.Sidecar(c) {
		request = max(request, leastRequest(pod))
	}

	request += unclaimed(pod)
	score := int64(oomBestEffort - math.Floor(1000*float64(request)/float64(node.MemoryCapacity)))
	return min(max(score, 1000+oomGuaranteed), oomBestEffort-1)
}

// leastRequest returns the smallest amount of memory that an application container requests.
func leastRequest(pod *v1.Pod) int64 {
	least := int64(math.MaxInt64)
	for _, c := range pod.Spec.Containers {
		least = min(least, c.Resources.Requests.Memory().Value())
	}
	return least
}

// unclaimed returns each container's share of the memory that the pod as a whole requests and no container
// does.
func unclaimed(pod *v1.Pod) int64 {
	if pod.Spec.Resources == nil {
		return 0
	}

	claimed := helpers.AggregateContainerRequests(pod, helpers.PodResourcesOptions{})
	rest := pod.Spec.Resources.Requests.Memory().Value() - claimed.Memory().Value()
	return max(rest, 0) / int64(len(pod.Spec.Containers)+len(pod.Spec.InitContainers))
}

// nodeCritical is the priority of the class system-node-critical.
const nodeCritical = 2_000_001_000

// critical reports whether the node cannot do without the pod: a static one, or one of that priority.
func critical(pod *v1.Pod) bool {
	return manifest.IsStatic(pod.Annotations) ||
		pod.Spec.Priority != nil && *pod.Spec.Priority >= nodeCritical
}

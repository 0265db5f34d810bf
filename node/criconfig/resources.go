package criconfig

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/runtime"
)

// Resources returns the limits of a container, those with which it is started and to which it is resized. A
// limit that it does not have is 0, which a runtime takes for no change when it resizes.
func Resources(node Node, pod *v1.Pod, c *v1.Container) *runtime.Resources {
	cpuLimit := podspec.Limit(pod, c, v1.ResourceCPU)
	memoryLimit := podspec.Limit(pod, c, v1.ResourceMemory)
	cpuRequest, hasRequest := c.Resources.Requests[v1.ResourceCPU]
	if !hasRequest {
		cpuRequest = cpuLimit
	}

	// A quota only where CPU limits are enforced: without one the container has its shares alone.
	out := &runtime.Resources{
		CpuPeriod:          cgroup.DefaultPeriod,
		CpuShares:          int64(cgroup.Shares(cpuRequest.MilliValue())),
		MemoryLimitInBytes: memoryLimit.Value(),
		OomScoreAdj:        oomScore(node, pod, c),
		HugepageLimits:     hugePages(node, pod, c),
	}
	if node.CPUQuota {
		out.CpuQuota = cgroup.Quota(cpuLimit.MilliValue())
	}

	// As with kubelet, the kernel's OOM killer ends all processes of a container together.
	if node.CgroupV2 {
		out.Unified = map[string]string{}
		if !node.SingleOOMKill {
			out.Unified["memory.oom.group"] = "1"
		}

		keepMemory(out, node.Memory, pod, c)
	}
	if node.Swap.Bounded {
		limitSwap(out, node, pod, c)
	}

	return out
}

// hugePages returns the limits of huge pages, of each size that the node has: the container's own, or else
// the pod's as a whole, or else 0.
func hugePages(node Node, pod *v1.Pod, c *v1.Container) []*cri.HugepageLimit {
	limits := map[string]int64{}
	for _, size := range node.PageSizes {
		limits[size] = 0
	}
	if pod.Spec.Resources != nil {
		maps.Copy(limits, pageLimits(pod.Spec.Resources.Limits))
	}
	maps.Copy(limits, pageLimits(c.Resources.Limits))

	var out []*cri.HugepageLimit
	for _, size := range slices.Sorted(maps.Keys(limits)) {
		out = append(out, &cri.HugepageLimit{PageSize: size, Limit: uint64(limits[size])})
	}

	return out
}

// pageLimits returns the huge pages of a list in bytes, by the kernel's names of their sizes.
func pageLimits(list v1.ResourceList) map[string]int64 {
	out := map[string]int64{}
	for name, amount := range list {
		if size, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix); ok {
			out[pageSize(size)] = amount.Value()
		}
	}
	return out
}

// keepMemory says from where on a container is slowed down, and what of its memory is not reclaimed: all
// three, so that nothing stays of what a container had before a resize. A limit of the pod as a whole
// throttles in the pod's group.
func keepMemory(out *runtime.Resources, qos podspec.MemoryQoS, pod *v1.Pod, c *v1.Container) {
	request := c.Resources.Requests.Memory().Value()
	limit := c.Resources.Limits.Memory().Value()
	out.Unified["memory.min"] = "0"
	out.Unified["memory.low"] = "0"
	out.Unified["memory.high"] = "max"

	if qos.Tiered && request > 0 {
		file := "memory.low"
		if podspec.QOS(pod) == v1.PodQOSGuaranteed {
			file = "memory.min"
		}

		out.Unified[file] = strconv.FormatInt(request, 10)
	}

	if limit == 0 && podspec.LimitsMemory(pod) {
		return
	}
	if limit == 0 {
		limit = qos.Allocatable
	}
	if high := qos.High(request, limit); high > 0 {
		out.Unified["memory.high"] = strconv.FormatInt(high, 10)
	}
}

// limitSwap says how much of a container's memory may go to the disk. On cgroup v1 that is nothing: the limit
// is of memory and swap together, and only a container with a limit of memory has one.
func limitSwap(out *runtime.Resources, node Node, pod *v1.Pod, c *v1.Container) {
	if node.CgroupV2 {
		out.Unified["memory.swap.max"] = strconv.FormatInt(node.Swap.Limit(pod, c), 10)
		return
	}
	out.MemorySwapLimitInBytes = out.MemoryLimitInBytes
}

// pageSize converts "2Mi" to the kernel's "2MB".
func pageSize(binary string) string { return strings.TrimSuffix(binary, "i") + "B" }

// SandboxResources returns what the pod's runtime class costs beside its containers, and the sum of these: of
// use to runtimes that size a virtual machine by it.
func SandboxResources(node Node, pod *v1.Pod) (overhead, resources *runtime.Resources) {
	return overheadOf(node, pod), podResources(node, pod)
}

// overheadOf is what the pod's runtime class costs beside its containers; nil if it costs nothing.
func overheadOf(node Node, pod *v1.Pod) *runtime.Resources {
	if len(pod.Spec.Overhead) == 0 {
		return nil
	}
	return fromLists(node, pod.Spec.Overhead, pod.Spec.Overhead)
}

// podResources is the sum over the pod, for runtimes that size a virtual machine by it.
func podResources(node Node, pod *v1.Pod) *runtime.Resources {
	options := helpers.PodResourcesOptions{ExcludeOverhead: true}
	return fromLists(node, helpers.PodRequests(pod, options), helpers.PodLimits(pod, options))
}

func fromLists(node Node, requests, limits v1.ResourceList) *runtime.Resources {
	out := &runtime.Resources{
		CpuPeriod:          cgroup.DefaultPeriod,
		CpuShares:          int64(cgroup.Shares(requests.Cpu().MilliValue())),
		MemoryLimitInBytes: limits.Memory().Value(),
	}
	if node.CPUQuota {
		out.CpuQuota = cgroup.Quota(limits.Cpu().MilliValue())
	}
	return out
}

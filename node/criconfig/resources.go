package criconfig

import (
	"math"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/node/manifest"
	"github.com/trivet-node/trivet/node/podspec"
)

// OOM scores (oom_score_adj): the kernel kills the higher ones first.
const (
	oomGuaranteed = -997
	oomBestEffort = 1000
)

// resourcesOf returns the limits of a container.
func resourcesOf(node Node, pod *v1.Pod, c *v1.Container) *cri.LinuxContainerResources {
	cpuRequest, hasRequest := c.Resources.Requests[v1.ResourceCPU]
	cpuLimit := c.Resources.Limits[v1.ResourceCPU]
	if !hasRequest {
		cpuRequest = cpuLimit
	}

	// A quota only where CPU limits are enforced: without one the container has its shares alone.
	out := &cri.LinuxContainerResources{
		CpuPeriod:          cgroup.DefaultPeriod,
		CpuShares:          int64(cgroup.Shares(cpuRequest.MilliValue())),
		MemoryLimitInBytes: c.Resources.Limits.Memory().Value(),
		OomScoreAdj:        oomScore(node, pod, c),
	}
	if node.CPUQuota {
		out.CpuQuota = cgroup.Quota(cpuLimit.MilliValue())
	}

	for name, amount := range c.Resources.Limits {
		size, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix)
		if !ok {
			continue
		}

		out.HugepageLimits = append(out.HugepageLimits, &cri.HugepageLimit{
			PageSize: pageSize(size),
			Limit:    uint64(amount.Value()),
		})
	}

	// As with kubelet, the kernel's OOM killer ends all processes of a container together.
	if node.CgroupV2 {
		out.Unified = map[string]string{}
		if !node.SingleOOMKill {
			out.Unified["memory.oom.group"] = "1"
		}
	}

	if node.CgroupV2 {
		keepMemory(out, node.Memory, pod, c)
	}
	if node.NoSwap {
		forbidSwap(out, node.CgroupV2)
	}

	return out
}

// keepMemory says from where on a container is slowed down, and what of its memory is not reclaimed. A limit
// of the pod as a whole throttles in the pod's group.
func keepMemory(out *cri.LinuxContainerResources, qos podspec.MemoryQoS, pod *v1.Pod, c *v1.Container) {
	request := c.Resources.Requests.Memory().Value()
	limit := c.Resources.Limits.Memory().Value()
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

// forbidSwap keeps the memory of a container off the disk. On cgroup v1 the limit is of memory and swap
// together, and only a container with a limit of memory has one.
func forbidSwap(out *cri.LinuxContainerResources, v2 bool) {
	if v2 {
		out.Unified["memory.swap.max"] = "0"
		return
	}
	out.MemorySwapLimitInBytes = out.MemoryLimitInBytes
}

// pageSize converts "2Mi" to the kernel's "2MB".
func pageSize(binary string) string { return strings.TrimSuffix(binary, "i") + "B" }

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

	request := c.Resources.Requests.Memory().Value()
	score := int64(oomBestEffort - math.Floor(1000*float64(request)/float64(node.MemoryCapacity)))
	return min(max(score, 1000+oomGuaranteed), oomBestEffort-1)
}

// nodeCritical is the priority of the class system-node-critical.
const nodeCritical = 2_000_001_000

// critical reports whether the node cannot do without the pod: a static one, or one of that priority.
func critical(pod *v1.Pod) bool {
	return manifest.IsStatic(pod.Annotations) ||
		pod.Spec.Priority != nil && *pod.Spec.Priority >= nodeCritical
}

// overhead is what the pod's runtime class costs beside its containers; nil if it costs nothing.
func overhead(node Node, pod *v1.Pod) *cri.LinuxContainerResources {
	if len(pod.Spec.Overhead) == 0 {
		return nil
	}
	return fromLists(node, pod.Spec.Overhead, pod.Spec.Overhead)
}

// podResources is the sum over the pod, for runtimes that size a virtual machine by it.
func podResources(node Node, pod *v1.Pod) *cri.LinuxContainerResources {
	options := helpers.PodResourcesOptions{ExcludeOverhead: true}
	return fromLists(node, helpers.PodRequests(pod, options), helpers.PodLimits(pod, options))
}

func fromLists(node Node, requests, limits v1.ResourceList) *cri.LinuxContainerResources {
	out := &cri.LinuxContainerResources{
		CpuPeriod:          cgroup.DefaultPeriod,
		CpuShares:          int64(cgroup.Shares(requests.Cpu().MilliValue())),
		MemoryLimitInBytes: limits.Memory().Value(),
	}
	if node.CPUQuota {
		out.CpuQuota = cgroup.Quota(limits.Cpu().MilliValue())
	}
	return out
}

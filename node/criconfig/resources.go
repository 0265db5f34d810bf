package criconfig

import (
	"math"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helpers "k8s.io/component-helpers/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/manifest"
)

// CPUPeriod is the period of quotas, in microseconds.
const CPUPeriod = 100_000

// How CPU amounts become cgroup values, as kubelet does.
const (
	minQuota  = 1000
	minShares = 2
	maxShares = 262144
)

// OOM scores (oom_score_adj): the kernel kills the higher ones first.
const (
	oomGuaranteed = -997
	oomBestEffort = 1000
)

// Shares turns milli-CPUs into cpu.shares.
func Shares(milli int64) int64 {
	if milli == 0 {
		return minShares
	}
	return min(max(milli*1024/1000, minShares), maxShares)
}

// Quota turns milli-CPUs into microseconds of each period of 100 ms; zero means no limit.
func Quota(milli int64) int64 {
	if milli == 0 {
		return 0
	}
	return max(milli*CPUPeriod/1000, minQuota)
}

// Resources are the limits of a container.
func Resources(node Node, pod *v1.Pod, c *v1.Container) *cri.LinuxContainerResources {
	cpuRequest, hasRequest := c.Resources.Requests[v1.ResourceCPU]
	cpuLimit := c.Resources.Limits[v1.ResourceCPU]
	if !hasRequest {
		cpuRequest = cpuLimit
	}

	out := &cri.LinuxContainerResources{
		CpuPeriod:          CPUPeriod,
		CpuShares:          Shares(cpuRequest.MilliValue()),
		MemoryLimitInBytes: valueOf(c.Resources.Limits, v1.ResourceMemory),
		OomScoreAdj:        OOMScore(node, pod, c),
	}
	if node.CPUQuota {
		out.CpuQuota = Quota(cpuLimit.MilliValue())
	}

	for name, amount := range c.Resources.Limits {
		if size, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix); ok {
			out.HugepageLimits = append(
				out.HugepageLimits,
				&cri.HugepageLimit{PageSize: pageSize(size), Limit: uint64(amount.Value())},
			)
		}
	}

	if node.CgroupV2 {
		out.Unified = map[string]string{}
		if !node.SingleOOMKill {
			out.Unified["memory.oom.group"] = "1"
		}
	}

	if node.NoSwap {
		forbidSwap(out, node.CgroupV2)
	}

	return out
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

// pageSize turns "2Mi" into the kernel's "2MB".
func pageSize(binary string) string { return strings.TrimSuffix(binary, "i") + "B" }

func valueOf(list v1.ResourceList, name v1.ResourceName) int64 {
	q := list[name]
	return q.Value()
}

// OOMScore is the oom_score_adj of a container by the quality of service of its pod: the less of the node's
// memory a burstable one asked for, the sooner it goes.
func OOMScore(node Node, pod *v1.Pod, c *v1.Container) int64 {
	if critical(pod) {
		return oomGuaranteed
	}

	switch QOS(pod) {
	case v1.PodQOSGuaranteed:
		return oomGuaranteed
	case v1.PodQOSBestEffort:
		return oomBestEffort
	}

	if node.MemoryCapacity <= 0 {
		return 999
	}

	request := valueOf(c.Resources.Requests, v1.ResourceMemory)
	score := int64(oomBestEffort - math.Floor(1000*float64(request)/float64(node.MemoryCapacity)))
	return min(max(score, 1000+oomGuaranteed), oomBestEffort-1)
}

// critical: static pods and those of priority system-node-critical.
func critical(pod *v1.Pod) bool {
	const systemCritical = 2000000000
	return manifest.IsStatic(pod.Annotations) ||
		pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCritical+1000
}

// QOS is the pod's quality of service. The API server fills it in; for static pods it is computed.
func QOS(pod *v1.Pod) v1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}

	guaranteed, any := true, false
	check := func(r v1.ResourceRequirements) {
		for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			request, limit := r.Requests[name], r.Limits[name]
			any = any || !request.IsZero() || !limit.IsZero()
			guaranteed = guaranteed && !limit.IsZero() && (request.IsZero() || request.Cmp(limit) == 0)
		}
	}
	if r := pod.Spec.Resources; r != nil && (len(r.Requests) > 0 || len(r.Limits) > 0) {
		check(*r)
	} else {
		for _, c := range pod.Spec.InitContainers {
			check(c.Resources)
		}

		for _, c := range pod.Spec.Containers {
			check(c.Resources)
		}
	}

	switch {
	case !any:
		return v1.PodQOSBestEffort
	case guaranteed:
		return v1.PodQOSGuaranteed
	}

	return v1.PodQOSBurstable
}

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
	cpu := func(l v1.ResourceList) int64 {
		q, ok := l[v1.ResourceCPU]
		if !ok {
			q = resource.Quantity{}
		}

		return q.MilliValue()
	}

	out := &cri.LinuxContainerResources{
		CpuPeriod:          CPUPeriod,
		CpuShares:          Shares(cpu(requests)),
		MemoryLimitInBytes: valueOf(limits, v1.ResourceMemory),
	}
	if node.CPUQuota {
		out.CpuQuota = Quota(cpu(limits))
	}

	return out
}

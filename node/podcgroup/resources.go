package podcgroup

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helpers "k8s.io/component-helpers/resource"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/node/podspec"
)

// PIDs names the number of processes in lists of what a node keeps for itself. It is not a resource of the
// API.
const PIDs v1.ResourceName = "pid"

// Whole returns the limits of all pods together, which can have what the node does not keep for itself.
func Whole(allocatable v1.ResourceList) cgroup.Limits {
	out := cgroup.Limits{}
	if cpu, ok := allocatable[v1.ResourceCPU]; ok {
		out.CPUShares = cgroup.Shares(cpu.MilliValue())
	}
	if memory, ok := allocatable[v1.ResourceMemory]; ok {
		out.Memory = memory.Value()
	}
	if pids, ok := allocatable[PIDs]; ok {
		out.PIDs = pids.Value()
	}
	return out
}

// groupLimits returns all limits of the pod's group on this node: with its bound of processes, and without
// huge pages of a size that the pod did not ask for. What the pod does not limit is unlimited.
func groupLimits(cfg Config, pod *v1.Pod) (cgroup.Limits, error) {
	out := podLimits(pod)
	if out.CPUQuota == 0 || !cfg.CPUQuota {
		out.CPUQuota = -1
	}
	if out.Memory == 0 {
		out.Memory = -1
	}
	if cfg.PodPIDs > 0 {
		out.PIDs = cfg.PodPIDs
	}
	if cfg.Host.V2 {
		keepMemory(&out, cfg.Memory, pod)
	}

	sizes, err := cgroup.PageSizes()
	if err != nil {
		return out, err
	}

	asked := out.HugePages
	out.HugePages = map[string]int64{}
	for _, size := range sizes {
		out.HugePages[size] = asked[size]
	}

	return out, nil
}

// podLimits returns what the pod says of its group, by kubelet's rules: the shares of what it requests, and a
// quota and a memory limit only if every container has one, or the pod has one itself.
func podLimits(pod *v1.Pod) cgroup.Limits {
	requests := helpers.PodRequests(pod, helpers.PodResourcesOptions{})
	limits := helpers.PodLimits(pod, helpers.PodResourcesOptions{})
	qos := podspec.QOS(pod)

	out := cgroup.Limits{HugePages: hugePages(requests)}
	if qos == v1.PodQOSBestEffort {
		out.CPUShares = cgroup.Shares(0)
		return out
	}

	out.CPUShares = cgroup.Shares(requests.Cpu().MilliValue())
	if qos == v1.PodQOSGuaranteed || limited(pod, v1.ResourceCPU) {
		out.CPUQuota = cgroup.Quota(limits.Cpu().MilliValue())
		out.CPUPeriod = cgroup.DefaultPeriod
		if requests.Cpu().IsZero() {
			out.CPUShares = cgroup.Shares(limits.Cpu().MilliValue())
		}
	}

	if qos == v1.PodQOSGuaranteed || limited(pod, v1.ResourceMemory) {
		out.Memory = limits.Memory().Value()
	}

	return out
}

// hugePages returns the amounts of a list by the kernel's names of the sizes.
func hugePages(list v1.ResourceList) map[string]int64 {
	var out map[string]int64
	for name, amount := range list {
		text, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix)
		size, err := resource.ParseQuantity(text)
		if !ok || err != nil || size.Sign() <= 0 {
			continue
		}
		if out == nil {
			out = map[string]int64{}
		}

		out[cgroup.PageSize(uint64(size.Value()))] += amount.Value()
	}

	return out
}

// balance is what the pods that have not ended request together.
type balance struct {
	shares uint64 // of CPU, of the burstable ones

	// Bytes of memory, if they are to be protected.
	burstable  int64
	guaranteed int64
}

func balanceOf(pods []*v1.Pod, protect bool) balance {
	var milli int64
	out := balance{}
	for _, p := range pods {
		ended := p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed
		qos := podspec.QOS(p)
		if ended || qos == v1.PodQOSBestEffort {
			continue
		}

		requests := helpers.PodRequests(p, helpers.PodResourcesOptions{})
		if qos == v1.PodQOSGuaranteed {
			out.guaranteed += requests.Memory().Value()
			continue
		}

		milli += requests.Cpu().MilliValue()
		out.burstable += requests.Memory().Value()
	}

	shares := cgroup.Shares(milli)
	if !protect {
		return balance{shares: shares}
	}

	out.shares = shares
	return out
}

// unprotected takes back what an earlier agent may have protected, if this one does not.
func unprotected(cfg Config) cgroup.Limits {
	if cfg.Memory.Tiered || !cfg.Host.V2 {
		return cgroup.Limits{}
	}
	return cgroup.Limits{MemoryMin: new(int64), MemoryLow: new(int64)}
}

// keepMemory adds from where on the pod is slowed down, if it has a limit as a whole, and what of its memory
// is not reclaimed: all three, so that nothing stays of what the pod had before a resize.
func keepMemory(out *cgroup.Limits, qos podspec.MemoryQoS, pod *v1.Pod) {
	requests := helpers.PodRequests(pod, helpers.PodResourcesOptions{})
	limits := helpers.PodLimits(pod, helpers.PodResourcesOptions{})
	request := requests.Memory().Value()
	out.MemoryMin = new(int64)
	out.MemoryLow = new(int64)
	out.MemoryHigh = -1

	switch {
	case !qos.Tiered || request == 0:
	case podspec.QOS(pod) == v1.PodQOSGuaranteed:
		out.MemoryMin = &request
	default:
		out.MemoryLow = &request
	}

	whole := pod.Spec.Resources != nil && limited(pod, v1.ResourceMemory)
	if high := qos.High(request, limits.Memory().Value()); high > 0 && whole {
		out.MemoryHigh = high
	}
}

// limited reports whether the pod as a whole has a limit of the resource.
func limited(pod *v1.Pod, name v1.ResourceName) bool {
	if pod.Spec.Resources != nil {
		if q := pod.Spec.Resources.Limits[name]; !q.IsZero() {
			return true
		}
	}

	for c := range podspec.Regular(pod) {
		if q := c.Resources.Limits[name]; q.IsZero() {
			return false
		}
	}

	return len(pod.Spec.Containers) > 0
}

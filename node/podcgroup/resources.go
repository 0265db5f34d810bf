package podcgroup

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helpers "k8s.io/component-helpers/resource"

	"github.com/trivet-node/trivet/internal/cgroup"
)

// Figures of the kernel's CPU controller, as kubelet uses them.
const (
	minShares      = 2
	sharesPerCPU   = 1024
	quotaPeriod    = 100_000 // microseconds
	minQuota       = 1_000   // microseconds
	milliPerCPU    = 1000
	maxCPUShares   = 262_144
	microsPerMilli = quotaPeriod / milliPerCPU
)

func shares(milliCPU int64) uint64 {
	return uint64(min(max(milliCPU*sharesPerCPU/milliPerCPU, minShares), maxCPUShares))
}

func quota(milliCPU int64) int64 { return max(milliCPU*microsPerMilli, minQuota) }

// Limits are those of the pod's group: the shares of what it requests; a quota and a memory limit only if every container has one
// (or the pod has one itself).
func Limits(pod *v1.Pod) cgroup.Limits {
	requests := helpers.PodRequests(pod, helpers.PodResourcesOptions{})
	limits := helpers.PodLimits(pod, helpers.PodResourcesOptions{})
	out := cgroup.Limits{CPUShares: shares(requests.Cpu().MilliValue())}
	if limited(pod, v1.ResourceCPU) {
		out.CPUQuota, out.CPUPeriod = quota(limits.Cpu().MilliValue()), quotaPeriod
		if requests.Cpu().IsZero() {
			out.CPUShares = shares(limits.Cpu().MilliValue())
		}
	}
	if limited(pod, v1.ResourceMemory) {
		out.Memory = limits.Memory().Value()
	}
	return out
}

// burstableShares is the CPU share of what the burstable pods that can run request together.
func burstableShares(pods []*v1.Pod) uint64 {
	var milli int64
	for _, p := range pods {
		if QOS(p) == v1.PodQOSBurstable && p.Status.Phase != v1.PodSucceeded && p.Status.Phase != v1.PodFailed {
			requests := helpers.PodRequests(p, helpers.PodResourcesOptions{})
			milli += requests.Cpu().MilliValue()
		}
	}
	return shares(milli)
}

// limited tells whether the pod as a whole has a limit of the resource.
func limited(pod *v1.Pod, name v1.ResourceName) bool {
	if pod.Spec.Resources != nil {
		if q, ok := pod.Spec.Resources.Limits[name]; ok {
			return !q.IsZero()
		}
	}
	has := func(c *v1.Container) bool {
		q, ok := c.Resources.Limits[name]
		return ok && !q.IsZero()
	}
	for i := range pod.Spec.Containers {
		if !has(&pod.Spec.Containers[i]) {
			return false
		}
	}
	for i := range pod.Spec.InitContainers {
		if !has(&pod.Spec.InitContainers[i]) {
			return false
		}
	}
	return len(pod.Spec.Containers) > 0
}

// QOS is the pod's quality of service class: what the API says, or computed from its requests and limits.
func QOS(pod *v1.Pod) v1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	var sets []v1.ResourceRequirements
	if r := pod.Spec.Resources; r != nil && (len(r.Requests) > 0 || len(r.Limits) > 0) {
		sets = append(sets, *r)
	} else {
		for _, c := range pod.Spec.Containers {
			sets = append(sets, c.Resources)
		}
		for _, c := range pod.Spec.InitContainers {
			sets = append(sets, c.Resources)
		}
	}
	any, guaranteed := false, true
	for _, r := range sets {
		for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			request, limit := r.Requests[name], r.Limits[name]
			if !request.IsZero() || !limit.IsZero() {
				any = true
			}
			if limit.IsZero() || !(request.IsZero() || equal(request, limit)) {
				guaranteed = false
			}
		}
	}
	switch {
	case !any:
		return v1.PodQOSBestEffort
	case guaranteed:
		return v1.PodQOSGuaranteed
	default:
		return v1.PodQOSBurstable
	}
}

func equal(a, b resource.Quantity) bool { return a.Cmp(b) == 0 }

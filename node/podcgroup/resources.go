package podcgroup

import (
	v1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/resource"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/node/criconfig"
)

// Limits are those of the pod's group: the shares of what it requests; a quota and a memory limit only if every container has one
// (or the pod has one itself).
func Limits(pod *v1.Pod) cgroup.Limits {
	requests := helpers.PodRequests(pod, helpers.PodResourcesOptions{})
	limits := helpers.PodLimits(pod, helpers.PodResourcesOptions{})
	out := cgroup.Limits{CPUShares: uint64(criconfig.Shares(requests.Cpu().MilliValue()))}
	if limited(pod, v1.ResourceCPU) {
		out.CPUQuota, out.CPUPeriod = criconfig.Quota(limits.Cpu().MilliValue()), criconfig.CPUPeriod
		if requests.Cpu().IsZero() {
			out.CPUShares = uint64(criconfig.Shares(limits.Cpu().MilliValue()))
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
		if criconfig.QOS(p) == v1.PodQOSBurstable && p.Status.Phase != v1.PodSucceeded && p.Status.Phase != v1.PodFailed {
			requests := helpers.PodRequests(p, helpers.PodResourcesOptions{})
			milli += requests.Cpu().MilliValue()
		}
	}
	return uint64(criconfig.Shares(milli))
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

package podspec

import (
	v1 "k8s.io/api/core/v1"
)

// QOS returns the pod's quality of service: that of its status, which the API server fills in, or else, for
// static pods, what follows from the resources of its specification
// (https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/).
func QOS(pod *v1.Pod) v1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}

	// Resources of the pod as a whole count instead of those of its containers.
	if r := pod.Spec.Resources; r != nil && (len(r.Requests) > 0 || len(r.Limits) > 0) {
		return class(*r)
	}

	var all []v1.ResourceRequirements
	for c := range Regular(pod) {
		all = append(all, c.Resources)
	}

	return class(all...)
}

// class is BestEffort when nothing is requested or limited, Guaranteed when everything is limited to what it
// requests, and Burstable otherwise.
func class(all ...v1.ResourceRequirements) v1.PodQOSClass {
	guaranteed := true
	named := false
	for _, r := range all {
		for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			request, limit := r.Requests[name], r.Limits[name]
			if !request.IsZero() || !limit.IsZero() {
				named = true
			}
			if limit.IsZero() || !request.IsZero() && request.Cmp(limit) != 0 {
				guaranteed = false
			}
		}
	}

	switch {
	case !named:
		return v1.PodQOSBestEffort
	case guaranteed:
		return v1.PodQOSGuaranteed
	}

	return v1.PodQOSBurstable
}

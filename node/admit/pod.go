package admit

import (
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/manifest"
)

// systemCritical is the lowest priority of pods that the system needs (system-cluster-critical).
const systemCritical = 2_000_000_000

// static reports whether the pod is of a manifest on the node.
func static(pod *v1.Pod) bool { return manifest.IsStatic(pod.Annotations) }

// Critical reports whether the node lets the pod in whatever it takes, and never evicts it.
func Critical(pod *v1.Pod) bool {
	_, mirror := pod.Annotations[v1.MirrorPodAnnotationKey]
	return static(pod) || mirror || pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCritical
}

// mayPreempt reports whether one pod may push another one out.
func mayPreempt(pod, victim *v1.Pod) bool {
	if Critical(pod) && !Critical(victim) {
		return true
	}
	return pod.Spec.Priority != nil && victim.Spec.Priority != nil &&
		*pod.Spec.Priority > *victim.Spec.Priority
}

// every calls visit for the security context of each container, until it returns false.
func every(pod *v1.Pod, visit func(*v1.SecurityContext) bool) bool {
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if !visit(list[i].SecurityContext) {
				return false
			}
		}
	}

	for i := range pod.Spec.EphemeralContainers {
		if !visit(pod.Spec.EphemeralContainers[i].SecurityContext) {
			return false
		}
	}

	return true
}

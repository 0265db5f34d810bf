// Package admit decides whether a pod that is new on the node can run here: what the scheduler checked is
// checked again, as pods may be bound by other means, and what this node cannot do is refused. Reasons and
// messages are kubelet's. It is pure.
package admit

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
)

// Node is what a pod is checked against.
type Node struct {
	Object         *v1.Node // labels, taints, resources of device plugins; nil: not known
	Allocatable    v1.ResourceList
	Pressure       []v1.NodeConditionType
	Features       []string // that the node declares
	AllowedSysctls []string // beside the safe ones; a trailing * stands for anything
	AppArmor       bool     // the kernel confines by AppArmor profiles
	StrictGroups   bool     // the runtime can leave out the groups of the image
	PodResources   bool     // feature gate PodLevelResources
}

// Verdict is the decision about a pod. The zero value admits it.
type Verdict struct {
	Reason, Message string // why the pod cannot run here

	// Preempt are pods that must end before this one, which is critical, is admitted again.
	Preempt []*v1.Pod
}

// Admitted reports whether the pod may run at once.
func (v Verdict) Admitted() bool { return v.Reason == "" && len(v.Preempt) == 0 }

// reject is a refusal.
func reject(reason, format string, args ...any) Verdict {
	return Verdict{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Check decides about the pod beside the active pods of the node, in the order in which kubelet does.
func Check(node Node, pod *v1.Pod, active []*v1.Pod) Verdict {
	for _, check := range []func() Verdict{
		func() Verdict { return unserved(pod) },
		func() Verdict { return pressure(node, pod) },
		func() Verdict { return sysctls(node, pod) },
		func() Verdict { return system(node, pod) },
		func() Verdict { return predicates(node, pod, active) },
		func() Verdict { return appArmor(node, pod) },
		func() Verdict { return features(node, pod) },
	} {
		if verdict := check(); !verdict.Admitted() {
			return verdict
		}
	}

	return Verdict{}
}

// predicates are what kubelet shares with the scheduler. All are asked: a critical pod makes room for
// itself only where nothing but room is missing.
func predicates(node Node, pod *v1.Pod, active []*v1.Pod) Verdict {
	short := fit(node, pod, active)
	misplaced := placement(node, pod, active)
	switch {
	case len(short) > 0 && Critical(pod) && misplaced.Admitted():
		return preempt(pod, active, short)
	case len(short) > 0 && !Critical(pod):
		return short[0].refusal()
	}
	return misplaced
}

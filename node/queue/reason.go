package queue

import (
	"math/bits"
	"strings"
)

// Reason is why a pod is worth a look.
type Reason uint8

// The reasons. A look is the same for all of them, except that ObjectChanged and DriverChanged also mean that
// what has failed may succeed now.
const (
	// PodChanged: the desired pod appeared, changed or went.
	PodChanged Reason = iota
	// ContainerChanged: the runtime reports a change of the pod's sandboxes or containers.
	ContainerChanged
	// OnlyInRuntime: the runtime has the pod and no source does.
	OnlyInRuntime
	// ProbeResult: a probe has changed what is known of a container's health.
	ProbeResult
	// ObjectChanged: a ConfigMap, Secret or other object that the pod refers to appeared, changed or went.
	ObjectChanged
	// DriverChanged: a CSI driver registered, or was removed.
	DriverChanged
	// StepEnded: a step of the pod ended, well or not.
	StepEnded
	// StatusSent: the API server answered a patch of the pod's status.
	StatusSent
	// StatusDue: a change of the status was held back long enough.
	StatusDue
	// AdmissionDue: the pod is not admitted yet, as others must end first.
	AdmissionDue
	// NameFreed: the static pod that had the pod's full name has gone.
	NameFreed
	// Preempted: the pod must end in favour of a critical one.
	Preempted
	// ResizeDue: it was decided about the resources that the pod asks for, or is to be.
	ResizeDue
	// Evicted: the pod must end as the node needs what it uses.
	Evicted
	// TimerDue: the plan asked for this time: the end of a back-off, a deadline, volumes to be renewed.
	TimerDue
	// Retry: the look or write before this one failed.
	Retry

	reasons = iota
)

var names = [reasons]string{
	PodChanged:       "pod changed",
	ContainerChanged: "container changed",
	OnlyInRuntime:    "only in runtime",
	ProbeResult:      "probe result",
	ObjectChanged:    "object changed",
	DriverChanged:    "driver changed",
	StepEnded:        "step ended",
	StatusSent:       "status sent",
	StatusDue:        "status due",
	AdmissionDue:     "admission due",
	NameFreed:        "name freed",
	Preempted:        "preempted",
	ResizeDue:        "resize due",
	Evicted:          "evicted",
	TimerDue:         "timer due",
	Retry:            "retry",
}

// String returns the reason in words, for logs.
func (r Reason) String() string { return names[r] }

// Reasons is a set of reasons: all those that were given for one pod since the look before.
type Reasons uint32

// of returns the set of the given reasons.
func of(all ...Reason) Reasons {
	var out Reasons
	for _, r := range all {
		out |= 1 << r
	}
	return out
}

// Has reports whether one or more of the given reasons are in the set.
func (r Reasons) Has(given ...Reason) bool { return r&of(given...) != 0 }

// String returns the reasons in words, separated by commas.
func (r Reasons) String() string {
	out := make([]string, 0, bits.OnesCount32(uint32(r)))
	for reason := range Reason(reasons) {
		if r.Has(reason) {
			out = append(out, reason.String())
		}
	}
	return strings.Join(out, ", ")
}

package status

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/trivet-node/trivet/node/plan"
)

// owned are the conditions that the agent writes.
var owned = map[v1.PodConditionType]bool{
	v1.PodReadyToStartContainers: true,
	v1.PodInitialized:            true,
	v1.ContainersReady:           true,
	v1.PodReady:                  true,
	v1.PodScheduled:              true,
	v1.PodResizePending:          true,
	v1.PodResizeInProgress:       true,
	v1.AllContainersRestarting:   true,
}

// Equal reports whether the API already shows want.
func Equal(have, want *v1.PodStatus) bool { return equality.Semantic.DeepEqual(have, want) }

// SameForeign reports whether the conditions that others write, readiness gates above all, are the same in
// both.
func SameForeign(a, b *v1.PodStatus) bool { return foreignIn(a, b) && foreignIn(b, a) }

// foreignIn reports whether b has each condition of a that others write, with the same status.
func foreignIn(a, b *v1.PodStatus) bool {
	for _, x := range a.Conditions {
		if y := condition(b.Conditions, x.Type); !owned[x.Type] && x.Status != y.Status {
			return false
		}
	}
	return true
}

// Urgent reports whether a change should be shown at once: of the phase, of readiness, of what a container
// does. Other changes of a pod that is still pending can wait for a moment and are often overtaken: in a
// burst of starts that saves the API server half of the writes.
func Urgent(have, want *v1.PodStatus) bool {
	if have.Phase != want.Phase && want.Phase != v1.PodPending || resized(have, want) {
		return true
	}
	return isTrue(have, v1.PodReady) != isTrue(want, v1.PodReady) ||
		isTrue(have, v1.ContainersReady) != isTrue(want, v1.ContainersReady) ||
		changedState(have.InitContainerStatuses, want.InitContainerStatuses) ||
		changedState(have.ContainerStatuses, want.ContainerStatuses) ||
		changedState(have.EphemeralContainerStatuses, want.EphemeralContainerStatuses)
}

// resized reports whether a resize has got somewhere: it waits, has failed, or is over. That one goes on is
// mostly over in a moment.
func resized(have, want *v1.PodStatus) bool {
	pending := condition(want.Conditions, v1.PodResizePending)
	going := condition(want.Conditions, v1.PodResizeInProgress)
	switch {
	case pending.Reason != condition(have.Conditions, v1.PodResizePending).Reason && pending.Reason != "":
		return true
	case going.Type != "":
		return going.Reason != "" && going.Reason != condition(have.Conditions, v1.PodResizeInProgress).Reason
	case condition(have.Conditions, v1.PodResizeInProgress).Type != "":
		return true
	}
	return have.AllocatedResources != nil &&
		!equality.Semantic.DeepEqual(have.AllocatedResources, want.AllocatedResources) ||
		changedResources(have.InitContainerStatuses, want.InitContainerStatuses) ||
		changedResources(have.ContainerStatuses, want.ContainerStatuses)
}

// changedResources reports whether a container has other resources than were shown.
func changedResources(have, want []v1.ContainerStatus) bool {
	for i := range want {
		old := find(have, want[i].Name)
		if old != nil && old.Resources != nil &&
			!equality.Semantic.DeepEqual(old.Resources, want[i].Resources) {
			return true
		}
	}
	return false
}

// isTrue reports whether a condition is there and true.
func isTrue(s *v1.PodStatus, t v1.PodConditionType) bool {
	c := condition(s.Conditions, t)
	return c.Status == v1.ConditionTrue
}

// changedState reports whether a container has begun, ended or been restarted between have and want.
func changedState(have, want []v1.ContainerStatus) bool {
	for i := range want {
		now, old := &want[i].State, find(have, want[i].Name)
		switch {
		case old == nil && now.Waiting == nil:
			return true
		case old != nil && (old.State.Terminated == nil) != (now.Terminated == nil):
			return true
		}
	}
	return false
}

// Replacing reports whether a container of a pod that should go on has just ended to run again as its spec is
// now, with nothing in the way. That takes a moment, and is worth showing only when it takes longer:
// conformance, too, expects a pod whose image was changed to be Ready still when it is looked at at once.
func Replacing(view *plan.View) bool {
	if view.Ending {
		return false
	}

	for i := range view.Pod.Spec.Containers {
		spec := &view.Pod.Spec.Containers[i]
		all := view.Started(spec.Name)
		if len(all) == 0 {
			continue
		}

		last := all[0]
		_, unpulled := view.Failed(plan.Pull, spec.Name)
		_, unstarted := view.Failed(plan.Start, spec.Name)
		changed := last.Hash != "" && last.Hash != plan.Hash(spec) || view.StoppedToResize(spec, last)
		if last.State == plan.Exited && changed && !unpulled && !unstarted {
			return true
		}
	}

	return false
}

// BackingOff returns the containers that want shows to wait for a back-off and have does not. The waiting
// reason of each is ReasonCrashLoop or ReasonPullBackOff.
func BackingOff(have, want *v1.PodStatus) []v1.ContainerStatus {
	return append(
		newlyWaiting(have.InitContainerStatuses, want.InitContainerStatuses),
		newlyWaiting(have.ContainerStatuses, want.ContainerStatuses)...,
	)
}

// newlyWaiting is BackingOff for one list of containers.
func newlyWaiting(have, want []v1.ContainerStatus) []v1.ContainerStatus {
	var out []v1.ContainerStatus
	for _, s := range want {
		reason := waitingReason(&s)
		if reason != ReasonCrashLoop && reason != ReasonPullBackOff {
			continue
		}
		if old := find(have, s.Name); old == nil || waitingReason(old) != reason {
			out = append(out, s)
		}
	}
	return out
}

// waitingReason returns why a container waits, empty if it does not.
func waitingReason(s *v1.ContainerStatus) string {
	if s.State.Waiting == nil {
		return ""
	}
	return s.State.Waiting.Reason
}

package status

import (
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/plan"
)

// restartingAll reports whether all containers of the pod are being restarted by a rule.
func restartingAll(view *plan.View, phase v1.PodPhase) (restarting bool, reason, message string) {
	switch {
	case phase == v1.PodSucceeded:
		return false, "PodCompleted", ""
	case phase == v1.PodFailed:
		return false, "PodFailed", ""
	case !view.RestartingAll():
		return false, "", ""
	}
	return true, "RestartAllContainersStarted", "container exited with restart policy rule"
}

// restarting is the state of a container whose instances were removed to restart all containers of the pod:
// end is how the newest one ended, and waiting why there is no other one.
func restarting(
	view *plan.View,
	end *v1.ContainerStateTerminated,
	waiting *v1.ContainerStateWaiting,
) (now, last v1.ContainerState) {
	if view.Down() {
		return v1.ContainerState{Terminated: end}, v1.ContainerState{}
	}

	if view.RestartingAll() {
		waiting = &v1.ContainerStateWaiting{
			Reason:  plan.RestartingAllContainers,
			Message: "The container is removed because RestartAllContainers in place",
		}
	}

	return v1.ContainerState{Waiting: waiting}, v1.ContainerState{Terminated: end}
}

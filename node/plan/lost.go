package plan

import (
	"encoding/json"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// This file is about pods that only one side knows: the API, after a reboot, or the runtime, after the object
// was removed.

// LostExitCode is that of a container that ran when its node went down, as with containerd and kubelet.
const LostExitCode = 255

// recall adds the instances that only the API knows to have run: a reboot makes runtimes forget. What ran is
// over, and whether it runs again is a question of the restart policy, as if the runtime still had it.
func (v *View) recall() {
	s := &v.Pod.Status
	for _, all := range [][]v1.ContainerStatus{
		s.InitContainerStatuses,
		s.ContainerStatuses,
		s.EphemeralContainerStatuses,
	} {
		for i := range all {
			if len(v.instances[all[i].Name]) > 0 {
				continue
			}

			lost := ran(&all[i])
			if lost == nil || v.wasRemoved(lost) {
				continue
			}
			if v.recalled == nil {
				v.recalled = map[string]*Container{}
			}

			v.recalled[lost.Name] = lost
		}
	}
}

// wasRemoved reports whether an instance that the runtime does not have was removed to restart all
// containers, or was about to be, so that its container starts from the beginning. If only the API tells, it
// was of the sandbox that is there, whose time the API has in whole seconds.
func (v *View) wasRemoved(c *Container) bool {
	known := v.removed[c.Name]
	if known != nil && known.Attempt >= c.Attempt || c.Reason == RestartingAllContainers {
		return true
	}

	if !MayRestartAll(v.Pod) {
		return false
	}

	here := v.Sandbox != nil && !c.Started.Before(v.Sandbox.Created.Truncate(time.Second))
	return here || restartShown(v.Pod)
}

// ran is the last instance in a container's status, nil if it has none.
func ran(s *v1.ContainerStatus) *Container {
	out := &Container{Name: s.Name, Attempt: uint32(s.RestartCount), State: Exited}
	ended := s.State.Terminated
	if ended == nil {
		ended = s.LastTerminationState.Terminated
	}

	switch {
	case s.State.Running != nil:
		out.ExitCode = LostExitCode
		out.Started = s.State.Running.StartedAt.Time
	case ended != nil:
		out.ExitCode = ended.ExitCode
		out.Reason = ended.Reason
		out.Started = ended.StartedAt.Time
		out.Finished = ended.FinishedAt.Time

	default:
		return nil
	}

	return out
}

// over reports whether an application container has run and will not run again.
func (v *View) over(c *v1.Container) bool {
	last := v.latest(c.Name)
	return last != nil && last.State == Exited && isApplication(v.Pod, c) && !restartAfter(v.Pod, c, last)
}

// orphan is a pod that only the runtime knows, with what the annotations there hold: enough to stop it.
func orphan(uid types.UID, o Observed) *v1.Pod {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid, Name: "unknown", Namespace: "unknown"}}
	for _, s := range o.Sandboxes {
		pod.Annotations = s.Annotations
	}

	seen := map[string]bool{}
	for _, c := range o.Containers {
		if !seen[c.Name] {
			seen[c.Name] = true
			pod.Spec.Containers = append(pod.Spec.Containers, annotated(c))
		}

		pod.Spec.TerminationGracePeriodSeconds = new(c.Grace)
	}

	return pod
}

// annotated is the spec of a container, as far as its annotations have it. What cannot be read is left out.
func annotated(c Container) v1.Container {
	out := v1.Container{Name: c.Name}
	hook := &v1.LifecycleHandler{}
	if json.Unmarshal([]byte(c.PreStop), hook) == nil {
		out.Lifecycle = &v1.Lifecycle{PreStop: hook}
	}
	_ = json.Unmarshal([]byte(c.Ports), &out.Ports)
	return out
}

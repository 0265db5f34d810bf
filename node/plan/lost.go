package plan

import (
	"time"

	v1 "k8s.io/api/core/v1"
)

// LostExitCode is that of a container that ran when its node went down, as with containerd and kubelet.
const LostExitCode = 255

// recall adds to the newest instances those that only the API knows to have run: a reboot makes runtimes
// forget. What ran is over, and whether it runs again is a question of the restart policy, as if the runtime
// still told of it.
func (v view) recall(pod *v1.Pod) {
	s := &pod.Status
	add := func(all []v1.ContainerStatus) {
		for i := range all {
			if v.latest[all[i].Name] != nil {
				continue
			}
			if lost := ran(&all[i]); lost != nil && !v.removed(pod, lost) {
				v.latest[lost.Name] = lost
			}
		}
	}

	add(s.InitContainerStatuses)
	add(s.ContainerStatuses)
	add(s.EphemeralContainerStatuses)
}

// removed reports whether an instance that the runtime does not have was removed by restartAll, so that its
// container begins anew: then it was of the sandbox that is there. The API's times are whole seconds.
func (v view) removed(pod *v1.Pod, c *Container) bool {
	return mayRestartAll(pod) && v.sandbox != nil &&
		!c.Started.Before(v.sandbox.Created.Truncate(time.Second))
}

// ran is the last instance that a status tells of, nil if it tells of none.
func ran(s *v1.ContainerStatus) *Container {
	out := &Container{Name: s.Name, Attempt: uint32(s.RestartCount), State: Exited}
	ended := s.State.Terminated
	if ended == nil {
		ended = s.LastTerminationState.Terminated
	}

	switch {
	case s.State.Running != nil:
		out.ExitCode, out.Started = LostExitCode, s.State.Running.StartedAt.Time
	case ended != nil:
		out.ExitCode, out.Started, out.Finished = ended.ExitCode, ended.StartedAt.Time, ended.FinishedAt.Time
	default:
		return nil
	}

	return out
}

// over reports whether an application container has run and will not run again.
func (p *planner) over(c *v1.Container) bool {
	last := p.latest[c.Name]
	return last != nil && last.State == Exited && p.isMain(c) && !restartAfter(p.Pod, c, last)
}

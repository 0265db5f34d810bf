package plan

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
)

// end takes the pod down: containers (sidecars last, in reverse order), sandboxes beside the last report,
// then volumes and cgroup beside the removal of the sandboxes, which hold nothing any more, and then the
// object.
func (p *planner) end() {
	if p.stopContainers() > 0 || p.starting() {
		return
	}
	if p.stopSandboxes() > 0 {
		return
	}

	if !p.Memory.Reported && !p.Memory.Gone {
		// the last status comes from what is taken down now: exit codes, termination messages
		return
	}

	if !p.Memory.TornDown {
		p.do(Step{Verb: Teardown})
	}

	if p.Pod.DeletionTimestamp == nil && !p.Memory.Gone {
		// ended by itself: its containers are kept for their logs until somebody deletes it
		return
	}

	for _, s := range p.Observed.Sandboxes {
		p.do(Step{Verb: RemoveSandbox, ID: s.ID})
	}

	if len(p.Observed.Sandboxes) == 0 {
		// of a sandbox that the runtime lost
		for _, c := range p.Observed.Containers {
			p.do(Step{Verb: RemoveContainer, ID: c.ID, Name: c.Name})
		}
	}

	switch {
	case !p.Memory.TornDown:
	case !p.Memory.Gone:
		// what is removed meanwhile holds nothing any more
		p.do(Step{Verb: Finalize})
	case len(p.Observed.Sandboxes)+len(p.Observed.Containers) == 0:
		p.do(Step{Verb: Forget})
	}
}

// starting reports whether a step that makes something is still in flight: what it makes must be seen first.
func (p *planner) starting() bool {
	for _, c := range slices.Concat(p.Pod.Spec.InitContainers, p.Pod.Spec.Containers) {
		if p.Memory.InFlight[Step{Verb: Start, Name: c.Name}.Key()] {
			return true
		}
	}
	for _, c := range p.Pod.Spec.EphemeralContainers {
		if p.Memory.InFlight[Step{Verb: Start, Name: c.Name}.Key()] {
			return true
		}
	}
	return p.Memory.InFlight[string(CreateSandbox)] || p.Memory.InFlight[string(Prepare)]
}

// stopContainers stops what runs and returns how many containers still do. Everything but sidecars goes at
// once; sidecars follow one by one, the last of the spec first.
func (p *planner) stopContainers() (running int) {
	sidecars := map[string]*Container{}
	others := 0
	for i := range p.Observed.Containers {
		c := &p.Observed.Containers[i]
		if c.State != Running {
			continue
		}

		running++
		if p.sidecarIndex(c.Name) >= 0 {
			sidecars[c.ID] = c
			continue
		}

		others++
		p.stop(c)
	}

	if others > 0 || len(sidecars) == 0 {
		return running
	}

	last := -1
	for _, c := range sidecars {
		last = max(last, p.sidecarIndex(c.Name))
	}

	for _, c := range sidecars {
		if p.sidecarIndex(c.Name) == last {
			p.stop(c)
		}
	}

	return running
}

func (p *planner) stop(c *Container) {
	why := "Killing"
	if p.out.Deadline || (p.Memory.Ended != nil && p.Memory.Ended.Reason == "DeadlineExceeded") {
		why = "DeadlineExceeded"
	}
	p.do(Step{
		Verb:  Stop,
		Name:  c.Name,
		ID:    c.ID,
		Grace: p.endGrace(c),
		Why:   why,
	})
}

func (p *planner) sidecarIndex(name string) int {
	return slices.IndexFunc(
		p.Pod.Spec.InitContainers,
		func(c v1.Container) bool { return c.Name == name && Sidecar(&c) },
	)
}

// grace is the time between SIGTERM and SIGKILL of one container of a pod that lives on.
func (p *planner) grace(override *int64) time.Duration {
	if override != nil {
		return time.Duration(*override) * time.Second
	}
	return Grace(p.Pod)
}

// LeastGrace is what a container gets to end by itself however late it is: a sidecar after the others, any
// after its preStop hook, or in a pod that is deleted with a grace of 0.
const LeastGrace = 2 * time.Second

// Grace is the pod's own termination grace period.
func Grace(pod *v1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return v1.DefaultTerminationGracePeriodSeconds * time.Second
}

// endGrace is what is left of the pod's grace: it is one budget for all its containers, sidecars included.
func (p *planner) endGrace(c *Container) time.Duration {
	if p.Pod.DeletionTimestamp == nil || p.Pod.DeletionGracePeriodSeconds == nil {
		if p.Memory.Gone && c.Grace > 0 {
			return time.Duration(c.Grace) * time.Second
		}

		return p.grace(nil)
	}

	grace := time.Duration(*p.Pod.DeletionGracePeriodSeconds) * time.Second
	// The API server's deletionTimestamp is when the grace ends. A sidecar, whose turn comes late, has only
	// the rest of it.
	if left := p.Pod.DeletionTimestamp.Sub(p.Now); p.sidecarIndex(c.Name) >= 0 && left < grace {
		return max(left, LeastGrace)
	}

	return grace
}

// stopSandboxes stops all sandboxes and returns how many are not stopped yet.
func (p *planner) stopSandboxes() (left int) {
	for _, s := range p.Observed.Sandboxes {
		if !p.stopSandbox(s) {
			left++
		}
	}
	return left
}

// stopSandbox reports whether a sandbox is stopped for good, network released, and stops it otherwise. It is
// stopped once in the agent's life even if the runtime calls it not ready: the stop may have been interrupted
// half-way.
func (p *planner) stopSandbox(s Sandbox) bool {
	step := Step{Verb: StopSandbox, ID: s.ID}
	if !s.Ready && p.Memory.Stopped[s.ID] && !p.Memory.InFlight[step.Key()] {
		return true
	}
	p.do(step)
	return false
}

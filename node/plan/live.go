package plan

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
)

// live brings a pod that should run closer to running.
func (p *planner) live() {
	p.prepare()
	if !p.ensureSandbox() {
		return
	}
	if p.restartAll() {
		return
	}

	p.removeLeftovers()
	p.removeSandboxes()
	p.ephemeral()
	if !p.initialise() {
		return
	}

	p.mains()
}

// prepare mounts volumes and finds images, beside the creation of the sandbox.
func (p *planner) prepare() {
	if !p.Memory.Prepared {
		p.do(Step{Verb: Prepare})
	}
	for _, c := range p.wantedSoon() {
		if p.Memory.Images[c.Name] != c.Image {
			p.do(Step{Verb: Pull, Name: c.Name})
		}
	}
}

// wantedSoon are the containers whose images should be at hand: those that will be started next and, ahead of
// time, all that never ran.
func (p *planner) wantedSoon() []*v1.Container {
	var out []*v1.Container
	add := func(c *v1.Container) {
		at := p.restartAt(c)
		if p.current(c.Name) == nil && !p.over(c) || at != nil && !at.After(p.Now) {
			out = append(out, c)
		}
	}

	started := p.mainsBegun()
	for i := range p.Pod.Spec.InitContainers {
		if c := &p.Pod.Spec.InitContainers[i]; !started || Sidecar(c) {
			add(c)
		}
	}

	for i := range p.Pod.Spec.Containers {
		add(&p.Pod.Spec.Containers[i])
	}

	for i := range p.Pod.Spec.EphemeralContainers {
		c := v1.Container(p.Pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		if p.latest[c.Name] == nil {
			out = append(out, &c)
		}
	}

	return out
}

// ensureSandbox reports whether containers may start. There is one ready sandbox: older ones are stopped, a
// dead one is replaced.
func (p *planner) ensureSandbox() bool {
	for _, s := range p.Observed.Sandboxes {
		if s.Ready && s.ID != p.sandbox.ID {
			p.do(Step{Verb: StopSandbox, ID: s.ID})
		}
	}

	if p.ready != nil {
		return true
	}

	var attempt uint32
	if p.sandbox != nil {
		attempt = p.sandbox.Attempt + 1
		if p.stopRunning("SandboxChanged") > 0 || !p.stopSandbox(*p.sandbox) {
			return false
		}
	}

	p.do(Step{Verb: CreateSandbox, Attempt: attempt})
	return false
}

// stopRunning stops whatever runs and tells how much of it there is.
func (p *planner) stopRunning(why string) (running int) {
	for _, c := range p.Observed.Containers {
		if c.State == Running {
			running++
			p.do(Step{
				Verb:  Stop,
				Name:  c.Name,
				ID:    c.ID,
				Grace: p.grace(nil),
				Why:   why,
			})
		}
	}

	return running
}

// removeLeftovers removes instances that were created but never started (the agent or the runtime died in
// between) and, of each container, all but the newest two: the newest is the status, the one before it the
// last state.
func (p *planner) removeLeftovers() {
	byName := map[string][]*Container{}
	for i := range p.Observed.Containers {
		c := &p.Observed.Containers[i]
		byName[c.Name] = append(byName[c.Name], c)
	}

	for name, all := range byName {
		if p.Memory.InFlight[Step{Verb: Start, Name: name}.Key()] {
			continue
		}

		slices.SortFunc(all, func(a, b *Container) int {
			if newer(a, b) {
				return -1
			}

			return 1
		})

		kept := 0
		for i, c := range all {
			switch {
			case c.State == Created:
				p.do(Step{Verb: RemoveContainer, ID: c.ID, Name: name})
			case c.State == Running && i > 0 && all[0].State == Running:
				p.do(Step{
					Verb: Stop,
					Name: name,
					ID:   c.ID,
					Why:  "Duplicate",
				})

			case c.State != Running && kept >= 2:
				p.do(Step{Verb: RemoveContainer, ID: c.ID, Name: name})
			default:
				kept++
			}
		}
	}
}

// removeSandboxes removes sandboxes that came before and hold nothing any more. Those with the last state of
// a container are kept for it.
func (p *planner) removeSandboxes() {
	for _, s := range p.Observed.Sandboxes {
		holds := slices.ContainsFunc(
			p.Observed.Containers,
			func(c Container) bool { return c.SandboxID == s.ID },
		)
		if s.ID != p.sandbox.ID && !s.Ready && !holds && p.stopSandbox(s) {
			p.do(Step{Verb: RemoveSandbox, ID: s.ID})
		}
	}
}

// ephemeral starts each ephemeral container once.
func (p *planner) ephemeral() {
	for i := range p.Pod.Spec.EphemeralContainers {
		if c := v1.Container(p.Pod.Spec.EphemeralContainers[i].EphemeralContainerCommon); p.latest[c.Name] == nil {
			p.start(&c, false)
		}
	}
}

// initialise runs the init containers in order and keeps the sidecars running. It reports whether application
// containers may start.
func (p *planner) initialise() bool {
	begun := p.mainsBegun()
	for i := range p.Pod.Spec.InitContainers {
		c := &p.Pod.Spec.InitContainers[i]
		cur := p.current(c.Name)
		switch {
		case !Sidecar(c) && begun:
			continue
		case cur != nil && cur.State == Running:
			if !p.keepHealthy(c, cur) && !begun {
				return false
			}
			if Sidecar(c) && (p.Memory.Health[cur.ID].Started || begun) {
				continue
			}

			// a sidecar that is not started yet, or an init container at work
			return false

		case cur != nil && cur.State == Exited && !Sidecar(c) && cur.ExitCode == 0:
			continue
		}

		p.restart(c, cur)
		if !begun {
			return false
		}
	}

	return true
}

// mainsBegun reports whether an application container was created in the current sandbox: then initialisation
// is over.
func (p *planner) mainsBegun() bool {
	return slices.ContainsFunc(
		p.Pod.Spec.Containers,
		func(c v1.Container) bool { return p.current(c.Name) != nil },
	)
}

// mains starts application containers one after the other in the order of the spec, as postStart hooks rely
// on it; one that cannot start does not hold up the next.
func (p *planner) mains() {
	for i := range p.Pod.Spec.Containers {
		c := &p.Pod.Spec.Containers[i]
		if p.Memory.InFlight[Step{Verb: Start, Name: c.Name}.Key()] {
			return
		}

		cur := p.current(c.Name)
		if cur != nil && cur.State == Running {
			p.keepHealthy(c, cur)
			continue
		}

		if p.restart(c, cur) {
			// in order
			return
		}
	}
}

// keepHealthy stops an instance that failed its probes or whose image was changed. It reports whether the
// instance stays.
func (p *planner) keepHealthy(c *v1.Container, cur *Container) bool {
	h := p.Memory.Health[cur.ID]
	switch {
	case cur.Hash != "" && cur.Hash != Hash(c):
		p.do(Step{
			Verb:  Stop,
			Name:  c.Name,
			ID:    cur.ID,
			Grace: p.grace(nil),
			Why:   "Changed",
		})

	case h.Unhealthy != "":
		p.do(Step{
			Verb:  Stop,
			Name:  c.Name,
			ID:    cur.ID,
			Grace: p.grace(h.Grace),
			Why:   h.Unhealthy,
		})

	default:
		return true
	}

	return false
}

// restart starts a container that never ran, or ran and may run again. It reports whether a start was begun.
func (p *planner) restart(c *v1.Container, cur *Container) bool {
	if p.Memory.InFlight[Step{Verb: RemoveContainer, ID: idOf(cur)}.Key()] ||
		(cur != nil && cur.State == Created) {
		return false
	}

	if cur == nil {
		// before the sandbox was replaced
		if p.over(c) {
			return false
		}

		return p.start(c, false)
	}

	at := p.restartAt(c)
	if at == nil {
		return false
	}

	if at.After(p.Now) {
		p.wake(*at)
		return false
	}

	return p.start(c, true)
}

func idOf(c *Container) string {
	if c == nil {
		return ""
	}
	return c.ID
}

func (p *planner) isMain(c *v1.Container) bool {
	return slices.ContainsFunc(p.Pod.Spec.Containers, func(m v1.Container) bool { return m.Name == c.Name })
}

// restartAt is when an ended instance may be replaced; nil: never, or it has not ended.
func (p *planner) restartAt(c *v1.Container) *time.Time {
	cur := p.current(c.Name)
	if cur == nil || cur.State == Running || cur.State == Created {
		return nil
	}

	changed := cur.Hash != "" && cur.Hash != Hash(c)
	if !changed && !p.mayRestart(c, cur) {
		return nil
	}
	if changed {
		return &time.Time{}
	}

	at := p.Memory.Backoffs[c.Name].Until(cur.Finished, p.Now, p.MaxBackoff)
	return &at
}

func (p *planner) mayRestart(c *v1.Container, last *Container) bool {
	if p.isMain(c) || Sidecar(c) {
		return restartAfter(p.Pod, c, last)
	}
	return last.State == Unknown || (last.ExitCode != 0 && restartAfter(p.Pod, c, last))
}

// start asks for a new instance when the volumes are mounted and the image is here. It reports whether the
// container is on its way. Volumes that are there but cannot be brought up to date (the API server is away,
// an object was deleted) hold up no restart.
func (p *planner) start(c *v1.Container, restart bool) bool {
	if !p.Memory.Mounted || p.Memory.Images[c.Name] != c.Image {
		return false
	}
	return p.do(Step{
		Verb:    Start,
		Name:    c.Name,
		ID:      p.ready.ID,
		Attempt: p.attempt(c.Name),
		Restart: restart,
	})
}

// attempt is the restart count of the next instance: one more than the newest one the runtime or the API
// knows.
func (p *planner) attempt(name string) uint32 {
	if last := p.latest[name]; last != nil {
		if last.State == Created {
			return last.Attempt
		}

		return last.Attempt + 1
	}

	for _, all := range [][]v1.ContainerStatus{
		p.Pod.Status.InitContainerStatuses,
		p.Pod.Status.ContainerStatuses,
	} {
		for i := range all {
			if s := &all[i]; s.Name == name && ran(s) != nil {
				// it was removed
				return uint32(s.RestartCount) + 1
			}
		}
	}

	return p.Logged[name]
}

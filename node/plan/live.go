package plan

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/podspec"
)

// live brings a pod that should run closer to running.
func (d *planner) live() {
	d.prepare()
	if !d.ensureSandbox() {
		return
	}
	if d.restartAll() {
		return
	}

	d.removeLeftovers()
	d.removeSandboxes()

	resizer{d}.plan()
	d.ephemeral()
	if d.initialize() {
		d.applications()
	}
}

// prepare mounts volumes and finds images, beside the creation of the sandbox.
func (d *planner) prepare() {
	d.renew()
	if !d.pod.volumes.fresh {
		d.do(Step{Verb: Prepare})
	}

	for _, c := range d.wantedSoon() {
		if d.pod.images[c.Name] != c.Image {
			d.do(Step{Verb: Pull, Name: c.Name, Image: c.Image})
		}
	}
}

// renew makes volumes out of date when their time has come.
func (d *planner) renew() {
	at := d.pod.volumes.renew
	if at.IsZero() {
		return
	}
	if at.After(d.Now) {
		d.wake(at)
		return
	}

	d.pod.outdate()
	d.pod.volumes.renew = time.Time{}
}

// wantedSoon returns the containers whose images should be on the node: those that will be started next and,
// ahead of time, all that never ran.
func (d *planner) wantedSoon() []*v1.Container {
	var out []*v1.Container
	add := func(c *v1.Container) {
		if cur := d.current(c.Name); cur == nil && !d.over(c) || cur != nil && d.restartDue(c, cur) {
			out = append(out, c)
		}
	}

	begun := d.applicationsBegun()
	for i := range d.Pod.Spec.InitContainers {
		if c := &d.Pod.Spec.InitContainers[i]; !begun || podspec.Sidecar(c) {
			add(c)
		}
	}

	for i := range d.Pod.Spec.Containers {
		add(&d.Pod.Spec.Containers[i])
	}

	for i := range d.Pod.Spec.EphemeralContainers {
		c := (*v1.Container)(&d.Pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		if d.latest(c.Name) == nil {
			out = append(out, c)
		}
	}

	return out
}

// ensureSandbox reports whether containers may start. There is one ready sandbox: older ones are stopped, a
// dead one is replaced.
func (d *planner) ensureSandbox() bool {
	for _, s := range d.Observed.Sandboxes {
		if s.Ready && s.ID != d.Sandbox.ID {
			d.do(Step{Verb: StopSandbox, ID: s.ID})
		}
	}

	if d.Ready() != nil {
		return true
	}

	var attempt uint32
	if d.Sandbox != nil {
		attempt = d.Sandbox.Attempt + 1
		if d.stopRunning(sandboxChanged) > 0 || !d.stopSandbox(*d.Sandbox) {
			return false
		}
	}

	d.do(Step{Verb: CreateSandbox, Attempt: attempt})
	return false
}

// stopRunning stops the running containers and returns how many there are.
func (d *planner) stopRunning(why string) (running int) {
	for _, c := range d.Observed.Containers {
		if c.State == Running {
			running++
			d.do(Step{
				Verb:  Stop,
				Name:  c.Name,
				ID:    c.ID,
				Grace: Grace(d.Pod),
				Why:   why,
			})
		}
	}

	return running
}

// removeLeftovers removes instances that were created but never started (the agent or the runtime died in
// between) and, of each container, all but the newest and the old ones that are kept: the newest is the
// status, the one before it the last state.
func (d *planner) removeLeftovers() {
	for name, all := range d.instances {
		if d.pod.steps.busy(Key{Start, name}) {
			continue
		}

		kept := 0
		for i, c := range all {
			switch {
			case c.State == Created:
				d.do(Step{Verb: RemoveContainer, Name: name, ID: c.ID})
			case c.State == Running && i > 0 && all[0].State == Running:
				d.do(Step{
					Verb: Stop,
					Name: name,
					ID:   c.ID,
					Why:  duplicate,
				})

			case c.State != Running && kept > d.pod.old:
				d.do(Step{Verb: RemoveContainer, Name: name, ID: c.ID})
			default:
				kept++
			}
		}
	}
}

// removeSandboxes removes sandboxes that came before and hold nothing any more. Those with the last state of
// a container are kept for it.
func (d *planner) removeSandboxes() {
	for _, s := range d.Observed.Sandboxes {
		if s.Ready || s.ID == d.Sandbox.ID {
			continue
		}

		of := func(c Container) bool { return c.SandboxID == s.ID }
		holds := slices.ContainsFunc(d.Observed.Containers, of)
		if !holds && d.stopSandbox(s) {
			d.do(Step{Verb: RemoveSandbox, ID: s.ID})
		}
	}
}

// ephemeral starts each ephemeral container once.
func (d *planner) ephemeral() {
	for i := range d.Pod.Spec.EphemeralContainers {
		c := (*v1.Container)(&d.Pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		if d.latest(c.Name) == nil {
			d.start(c, false)
		}
	}
}

// initialize runs the init containers in order and keeps the sidecars running. It reports whether application
// containers may start.
func (d *planner) initialize() bool {
	begun := d.applicationsBegun()
	for i := range d.Pod.Spec.InitContainers {
		c := &d.Pod.Spec.InitContainers[i]
		cur := d.current(c.Name)
		switch {
		case !podspec.Sidecar(c) && begun:
			// Its time is over, however it ended.
			continue
		case cur != nil && cur.State == Running:
			if !d.keepHealthy(c, cur) && !begun {
				return false
			}
			if podspec.Sidecar(c) && (d.Health[cur.ID].Started || begun) {
				continue
			}

			// A sidecar that is not started yet, or an init container at work.
			return false

		case cur != nil && cur.State == Exited && !podspec.Sidecar(c) && cur.ExitCode == 0:
			continue
		}

		d.restart(c, cur)
		if !begun {
			return false
		}
	}

	return true
}

// applications starts application containers one after the other in the order of the spec, as postStart hooks
// rely on it. One that cannot start does not hold up the next.
func (d *planner) applications() {
	for i := range d.Pod.Spec.Containers {
		c := &d.Pod.Spec.Containers[i]
		if d.pod.steps.busy(Key{Start, c.Name}) {
			return
		}

		cur := d.current(c.Name)
		if cur != nil && cur.State == Running {
			d.keepHealthy(c, cur)
			continue
		}

		if d.restart(c, cur) {
			return
		}
	}
}

// keepHealthy stops an instance that failed its probes or whose image was changed. It reports whether the
// instance stays.
func (d *planner) keepHealthy(c *v1.Container, cur *Container) bool {
	step := Step{
		Verb:  Stop,
		Name:  c.Name,
		ID:    cur.ID,
		Grace: Grace(d.Pod),
	}

	health := d.Health[cur.ID]
	switch {
	case d.pod.changed(c, cur):
		step.Why = Changed
	case d.outgrown(c, cur):
		step.Why = Resized
	case health.Unhealthy != "":
		step.Why = health.Unhealthy
		if health.Grace != nil {
			step.Grace = seconds(*health.Grace)
		}

	default:
		return true
	}

	d.do(step)
	return false
}

// restart starts a container that never ran, or ran and may run again. It reports whether a start was begun.
func (d *planner) restart(c *v1.Container, cur *Container) bool {
	if cur == nil {
		// It may have run, and ended for good, before the sandbox was replaced.
		return !d.over(c) && d.start(c, false)
	}
	if cur.State == Created || d.pod.steps.busy(Key{RemoveContainer, cur.ID}) {
		return false
	}
	return d.restartDue(c, cur) && d.start(c, true)
}

// restartDue reports whether the instance of a container ended and may be replaced now. If it may be later,
// the next decision is made then.
func (d *planner) restartDue(c *v1.Container, cur *Container) bool {
	switch {
	case cur.State == Running || cur.State == Created:
		return false
	case d.pod.changed(c, cur) || d.StoppedToResize(c, cur):
		return true
	case !mayRestart(d.Pod, c, cur):
		return false
	}

	_, until := d.Backoff(cur)
	if until.After(d.Now) {
		d.wake(until)
		return false
	}

	return true
}

// start asks for a new instance when the volumes are mounted and the image is here. It reports whether the
// container is on its way. Volumes that are there but cannot be brought up to date (the API server is away,
// an object was deleted) hold up no restart.
func (d *planner) start(c *v1.Container, restart bool) bool {
	if !d.Observed.Mounted || d.pod.images[c.Name] != c.Image || (resizer{d}).narrow() {
		return false
	}

	return d.do(Step{
		Verb:    Start,
		Name:    c.Name,
		ID:      d.Sandbox.ID,
		Attempt: d.attempt(c.Name),
		Restart: restart,
	})
}

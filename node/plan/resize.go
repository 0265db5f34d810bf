package plan

import (
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/podspec"
)

// This file is about pods whose resources change while they run (KEP-1287). What a pod has been given is
// decided elsewhere, and is in the specification that Want takes. The plan puts it in force: one step,
// Resize, widens the pod's group, changes the containers that run, and narrows the group. Containers whose
// resizePolicy asks for a restart are stopped before it and started after it.
//
// A pod that was never resized costs nothing here.

// Grant says that a pod has been given other resources than those it was admitted with.
type Grant struct {
	// Generation is that of the pod's specification that asked for them.
	Generation int64

	// At is when they were given. It tells one grant of a pod from the next.
	At time.Time

	// Announced means that the end of the resize is to be told: the API does not show it yet.
	Announced bool
}

// Pending says that a pod has not been given the resources that its specification asks for.
type Pending struct {
	// Reason is Deferred or Infeasible.
	Reason  string
	Message string

	// Generation is that of the specification.
	Generation int64
}

// Size is an instance that runs with other resources than its container has been given.
type Size struct {
	Name string
	ID   string

	// Shrinks means that its limit of memory may be lower than what it has now.
	Shrinks bool
	To      podspec.Amounts
}

// sizes is what is known of the resources in force.
type sizes struct {
	// grant is the newest one; nil: the pod was never resized.
	grant *Grant

	// whole is when the grant was made that the pod's group is known to have.
	whole time.Time

	// applied is what instances were resized to, by ID.
	applied map[string]podspec.Amounts

	// since is when this agent decided about the pod first: what others may have resized the instances before
	// to is not known.
	since time.Time

	// open means that the end of the resize is still to be told.
	open bool
}

// Given takes the newest grant of the pod, nil if it was never resized, and why it waits for another one, nil
// if it does not. With a new grant, what failed may succeed, and volumes may show other resources.
func (p *Pod) Given(g *Grant, pending *Pending) {
	p.pending = pending
	if g == p.sizes.grant || g == nil {
		return
	}

	p.sizes.grant = g
	p.sizes.open = g.Announced
	clear(p.steps.failures)
	p.outdate()
}

// see forgets what instances were resized to that have gone.
func (s *sizes) see(all []Container) {
	maps.DeleteFunc(s.applied, func(id string, _ podspec.Amounts) bool {
		return !slices.ContainsFunc(all, func(c Container) bool { return c.ID == id })
	})
}

// succeeded keeps what a Resize has put in force.
func (s *sizes) succeeded(step Step) {
	if s.applied == nil {
		s.applied = map[string]podspec.Amounts{}
	}
	for _, size := range step.Sizes {
		s.applied[size.ID] = size.To
	}
	s.whole = step.Grant.At
}

// of returns the resources that an instance has; nil if that is not known.
func (s *sizes) of(c *Container) *podspec.Amounts {
	if a, known := s.applied[c.ID]; known {
		return &a
	}
	if c.Created.Before(s.since) {
		return nil
	}
	return c.CreatedWith
}

// resizer plans the resize of a pod that runs.
type resizer struct{ *planner }

// plan puts the newest grant in force, once no instance runs any more that must be replaced for it: that one
// may be larger than the group will be.
func (d resizer) plan() {
	s := &d.pod.sizes
	if s.grant == nil || d.anyOutgrown() {
		return
	}

	todo := d.missized()
	if len(todo) > 0 || d.groupMissized() {
		d.do(Step{
			Verb:    Resize,
			ID:      d.Sandbox.ID,
			Grant:   s.grant,
			Sizes:   todo,
			Restart: d.anyReplaced(),
		})
	}
}

// missized returns the instances that run and do not have what their containers have been given, those whose
// memory shrinks first.
func (d resizer) missized() []Size {
	var out []Size
	for c := range podspec.Regular(d.Pod) {
		cur := d.current(c.Name)
		if cur == nil || cur.State != Running {
			continue
		}

		from, to := d.pod.sizes.of(cur), podspec.AmountsOf(d.Pod, c)
		if from == nil || *from != to {
			out = append(out, Size{
				Name:    c.Name,
				ID:      cur.ID,
				Shrinks: shrinks(cur, from, to),
				To:      to,
			})
		}
	}

	slices.SortStableFunc(out, func(a, b Size) int {
		switch {
		case a.Shrinks == b.Shrinks:
			return 0
		case a.Shrinks:
			return -1
		}

		return 1
	})

	return out
}

// shrinks reports whether an instance has a higher limit of memory than it is given, or may have: what it was
// resized to last may be known to the runtime only.
func shrinks(instance *Container, from *podspec.Amounts, to podspec.Amounts) bool {
	if to.MemoryLimit == 0 {
		return false
	}

	var now int64
	switch {
	case from != nil:
		now = from.MemoryLimit
	case instance.Resources != nil:
		now = instance.Resources.Memory
	}

	return now <= 0 || now > to.MemoryLimit
}

// groupMissized reports whether the pod's group is not known to have what the pod has been given.
func (d resizer) groupMissized() bool {
	s := &d.pod.sizes
	return s.grant != nil && !s.whole.Equal(s.grant.At)
}

// narrow reports whether the pod's group may be too small for a container that is started now. It is about to
// be widened; where that fails, the container is tried as it is.
func (d resizer) narrow() bool {
	_, failed := d.failures[Key{Verb: Resize}]
	return d.groupMissized() && !failed
}

// anyOutgrown reports whether an instance runs that must be replaced to be resized.
func (d resizer) anyOutgrown() bool {
	for c := range podspec.Regular(d.Pod) {
		if cur := d.current(c.Name); cur != nil && cur.State == Running && d.outgrown(c, cur) {
			return true
		}
	}
	return false
}

// outgrown reports whether an instance was created with other resources than its container has been given, of
// those that cannot be changed in place by its resizePolicy.
func (v *View) outgrown(c *v1.Container, instance *Container) bool {
	if v.grant == nil || instance.CreatedWith == nil {
		return false
	}

	have, want := *instance.CreatedWith, podspec.AmountsOf(v.Pod, c)
	for _, p := range c.ResizePolicy {
		if p.RestartPolicy != v1.RestartContainer {
			continue
		}

		cpu := have.CPURequest != want.CPURequest || have.CPULimit != want.CPULimit
		memory := have.MemoryRequest != want.MemoryRequest || have.MemoryLimit != want.MemoryLimit
		if p.ResourceName == v1.ResourceCPU && cpu || p.ResourceName == v1.ResourceMemory && memory {
			return true
		}
	}

	return false
}

// Lags reports whether an instance that runs does not have what its container has been given.
func (v *View) Lags(id string) bool {
	return slices.ContainsFunc(v.lagging, func(s Size) bool { return s.ID == id })
}

// StoppedToResize reports whether an instance that ended was stopped because its container has been given
// other resources. One that had ended before is left to the restart policy.
func (v *View) StoppedToResize(c *v1.Container, instance *Container) bool {
	return v.grant != nil && instance.State == Exited && v.outgrown(c, instance) &&
		instance.Finished.After(v.grant.At)
}

// progress finds out whether the newest grant is in force everywhere, and that it has just come to be.
func (d resizer) progress() {
	s := &d.pod.sizes
	if s.grant == nil {
		return
	}

	d.lagging = d.missized()
	switch {
	case d.Ending:
		s.open = false
	case d.Ready() == nil:
		// Without a sandbox nothing can have them.
	case d.groupMissized() || len(d.lagging) > 0 || d.anyReplaced() || d.anyStartedBefore():
		d.Resizing = s.grant
	case s.open:
		s.open = false
		d.out.Resized = s.grant
	}
}

// anyReplaced reports whether an instance is being replaced to be resized: until the start of the next one is
// over, which a Created one is only on its way to.
func (d resizer) anyReplaced() bool {
	for c := range podspec.Regular(d.Pod) {
		all := d.Started(c.Name)
		if len(all) == 0 {
			continue
		}
		if last := all[0]; last.State == Running && d.outgrown(c, last) || d.StoppedToResize(c, last) {
			return true
		}
	}
	return false
}

// anyStartedBefore reports whether a start is in flight, or has just ended, that began before the newest
// grant: what it starts is not seen yet, and is to be resized.
func (d resizer) anyStartedBefore() bool {
	for key, f := range d.pod.steps.inFlight {
		if key.Verb == Start && f.grant != d.pod.sizes.grant {
			return true
		}
	}
	for key := range d.pod.steps.landed {
		if key.Verb == Start {
			return true
		}
	}
	return false
}

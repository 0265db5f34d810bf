package containergc

import (
	"cmp"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/runtime"
)

// Policy says which containers that have ended stay, by kubelet's flags.
type Policy struct {
	// MinAge is --minimum-container-ttl-duration, since the container was created.
	MinAge time.Duration

	// PerContainer is --maximum-dead-containers-per-container, beside the newest; negative: no limit.
	PerContainer int

	// Total is --maximum-dead-containers, of the node; negative: no limit.
	Total int
}

// fate is what becomes of the containers of a pod.
type fate int

const (
	unknown fate = iota // the API has no such pod: the pod worker ends it and removes all of it
	live                // the pod has not ended
	ended               // the pod has ended; its last containers are kept for their logs
	evicted             // the pod has ended and has given up its disk space
)

// fateOf returns that of a pod as the API has it; nil: the API does not.
func fateOf(pod *v1.Pod) fate {
	switch {
	case pod == nil:
		return unknown
	case !plan.Terminal(pod.Status.Phase):
		return live
	case pod.Status.Reason == "Evicted":
		return evicted
	}
	return ended
}

// state is what the runtime has, and what becomes of it.
type state struct {
	containers []runtime.Container
	sandboxes  []runtime.Sandbox
	fate       func(pod types.UID) fate

	// reclaim means that disk space is needed: nothing of pods that have ended is kept.
	reclaim bool
	now     time.Time
}

// decision is what to remove, in this order.
type decision struct {
	containers []runtime.Container
	sandboxes  []runtime.Sandbox
}

// unit is a container of a pod, of which there may be several instances.
type unit struct {
	pod  types.UID
	name string
}

// decide returns what to remove. What runs, and the newest instance of each container of a pod that has not
// ended, stays in any case.
func (p Policy) decide(s state) decision {
	units := s.units()
	var out decision
	remove := func(all []runtime.Container) {
		out.containers = append(out.containers, all...)
	}

	// What each container keeps by itself.
	left := map[unit][]runtime.Container{}
	total := 0
	for u, all := range units {
		old := p.removable(s, u, all)
		keep := p.perContainer(s, u, len(all)-len(old))
		remove(old[min(keep, len(old)):])

		left[u] = old[:min(keep, len(old))]
		total += len(left[u])
	}

	// What all keep together: an equal number each, then the newest.
	if p.Total >= 0 && total > p.Total {
		each := max(p.Total/len(left), 1)
		var rest []runtime.Container
		for _, old := range left {
			remove(old[min(each, len(old)):])
			rest = append(rest, old[:min(each, len(old))]...)
		}

		slices.SortFunc(rest, newestFirst)
		remove(rest[min(p.Total, len(rest)):])
	}

	slices.SortFunc(out.containers, func(a, b runtime.Container) int { return newestFirst(b, a) })
	out.sandboxes = s.emptySandboxes(out.containers)
	return out
}

// units returns the instances of each container of the pods that the API has, the newest first.
func (s *state) units() map[unit][]runtime.Container {
	out := map[unit][]runtime.Container{}
	for _, c := range s.containers {
		pod := types.UID(c.Pod.UID)
		if pod != "" && s.fate(pod) != unknown {
			out[unit{pod, c.Name}] = append(out[unit{pod, c.Name}], c)
		}
	}

	for _, all := range out {
		slices.SortFunc(all, newestFirst)
	}

	return out
}

// removable returns the instances that may be removed. One that is only created may be about to be started.
func (p Policy) removable(s state, u unit, all []runtime.Container) []runtime.Container {
	alive := s.fate(u.pod) == live
	var out []runtime.Container
	for i, c := range all {
		young := c.Created.After(s.now.Add(-p.MinAge))
		needed := alive && (i == 0 || c.State == plan.Created)
		if c.State != plan.Running && !needed && !young {
			out = append(out, c)
		}
	}
	return out
}

// perContainer returns how many of the instances that may be removed a container keeps. others is the number
// of those that may not.
func (p Policy) perContainer(s state, u unit, others int) int {
	what := s.fate(u.pod)
	switch {
	case what == evicted || what == ended && s.reclaim:
		return 0
	case p.PerContainer < 0:
		return len(s.containers)
	}
	return max(p.PerContainer+1-others, 0)
}

// emptySandboxes returns those of pods that have ended that hold nothing after the removal of containers. The
// newest one of a pod stays, unless space is needed.
func (s *state) emptySandboxes(removed []runtime.Container) []runtime.Sandbox {
	held := map[string]int{}
	for _, c := range s.containers {
		held[c.SandboxID]++
	}
	for _, c := range removed {
		held[c.SandboxID]--
	}

	newest := map[string]string{}
	sandboxes := slices.Clone(s.sandboxes)
	slices.SortFunc(sandboxes, func(a, b runtime.Sandbox) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})

	var out []runtime.Sandbox
	for _, box := range sandboxes {
		if newest[box.Pod.UID] == "" {
			newest[box.Pod.UID] = box.ID
		}

		what := s.fate(types.UID(box.Pod.UID))
		all := what == evicted || what == ended && s.reclaim
		older := what == ended && !box.Ready && newest[box.Pod.UID] != box.ID
		if box.Pod.UID != "" && held[box.ID] == 0 && (all || older) {
			out = append(out, box)
		}
	}

	return out
}

// newestFirst orders instances as they were created.
func newestFirst(a, b runtime.Container) int {
	return cmp.Or(
		b.Created.Compare(a.Created),
		cmp.Compare(b.Attempt, a.Attempt),
		cmp.Compare(a.ID, b.ID),
	)
}

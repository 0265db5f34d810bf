// Package gate remembers which pods the node has admitted. The oldest pod is decided about first, an admitted
// pod counts for the next one, and a critical pod waits for those that are preempted in its favour.
package gate

import (
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podsource"
)

// Allocations are what the pods have been given (allocation.Ledger).
type Allocations interface {
	// Admit says that a pod is given what this version of it asks for.
	Admit(pod *v1.Pod)
	// Of returns the pod with what it has been given in its specification.
	Of(pod *v1.Pod) *v1.Pod
}

// Gate is passed by each pod once in the life of an agent, and by each resize.
type Gate struct {
	check       func(pod *v1.Pod, active []*v1.Pod) admit.Verdict // nil: all are admitted
	allocations Allocations
	// called for a pod that must end for another one
	preempt func(types.UID)

	// mu guards what follows.
	mu       sync.Mutex
	admitted map[types.UID]bool
	verdicts map[types.UID]admit.Verdict
	waiting  map[types.UID]bool      // critical pods that wait for their victims to end
	victims  map[types.UID]types.UID // preempted pods, and the critical pod each ends for
}

// New returns a gate. preempt is called with locks held: it must not block or call the gate.
func New(
	check func(pod *v1.Pod, active []*v1.Pod) admit.Verdict,
	allocations Allocations,
	preempt func(types.UID),
) *Gate {
	return &Gate{
		check:       check,
		allocations: allocations,
		preempt:     preempt,
		admitted:    map[types.UID]bool{},
		verdicts:    map[types.UID]admit.Verdict{},
		waiting:     map[types.UID]bool{},
		victims:     map[types.UID]types.UID{},
	}
}

// Begun says that a pod runs on the node already: it counts as admitted and is never decided about.
func (g *Gate) Begun(uid types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.admitted[uid] = true
}

// Victim reports whether a pod is preempted: it must end for a critical one.
func (g *Gate) Victim(uid types.UID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ends := g.victims[uid]
	return ends
}

// Forget drops a pod that is gone.
func (g *Gate) Forget(uid types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.admitted, uid)
	delete(g.verdicts, uid)
	delete(g.waiting, uid)
	delete(g.victims, uid)
}

// Ask decides about a pod of all those of the node. A verdict with pods to preempt is not the last one: they
// end, and the pod is asked about again. Nor is NodeAffinity, as the node may have another label by then.
func (g *Gate) Ask(pod *v1.Pod, all []*v1.Pod) admit.Verdict {
	g.mu.Lock()
	defer g.mu.Unlock()

	if g.check == nil {
		g.allocations.Admit(pod)
		return admit.Verdict{}
	}

	for _, older := range g.undecided(all, pod) {
		g.judge(older, all)
	}

	if verdict, ok := g.verdicts[pod.UID]; ok {
		return verdict
	}

	return g.judge(pod, all)
}

// ending returns the victims of a critical pod that have not ended yet. While there are any no more are
// chosen: they would end in vain.
func (g *Gate) ending(pod *v1.Pod, all []*v1.Pod) []*v1.Pod {
	var out []*v1.Pod
	for _, o := range all {
		if by, ends := g.victims[o.UID]; ends && by == pod.UID && !plan.Terminal(o.Status.Phase) {
			out = append(out, o)
		}
	}
	return out
}

// undecided returns the pods that came before a pod and are still to be decided about, oldest first.
func (g *Gate) undecided(all []*v1.Pod, pod *v1.Pod) []*v1.Pod {
	var out []*v1.Pod
	for _, o := range all {
		_, judged := g.verdicts[o.UID]
		over := plan.Terminal(o.Status.Phase) || o.DeletionTimestamp != nil || podsource.Mirror(o)
		if !judged && !over && !g.counts(o) && o.CreationTimestamp.Before(&pod.CreationTimestamp) {
			out = append(out, o)
		}
	}

	slices.SortStableFunc(out, func(a, b *v1.Pod) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	return out
}

// judge decides about a pod beside the active ones.
func (g *Gate) judge(pod *v1.Pod, all []*v1.Pod) admit.Verdict {
	if ending := g.ending(pod, all); len(ending) > 0 {
		return admit.Verdict{Preempt: ending}
	}

	verdict := g.check(pod, g.active(pod, all))
	switch {
	case len(verdict.Preempt) > 0:
		g.waiting[pod.UID] = true
		g.end(verdict.Preempt, pod)
		return verdict

	case verdict.Reason == admit.NodeAffinity:
		return verdict
	case verdict.Reason == "":
		g.admitted[pod.UID] = true
		g.allocations.Admit(pod)
	}

	delete(g.waiting, pod.UID)
	g.verdicts[pod.UID] = verdict
	return verdict
}

// end makes pods end in favour of a critical one.
func (g *Gate) end(victims []*v1.Pod, by *v1.Pod) {
	for _, victim := range victims {
		g.victims[victim.UID] = by.UID
		g.preempt(victim.UID)
	}
}

// Resize decides about a pod that runs on the node and asks for other resources, with the same checks as for
// a new one, and calls decided with the verdict before anything else is decided: what is given to this pod
// counts for the next one. A critical pod waits for those that are preempted in its favour.
func (g *Gate) Resize(pod *v1.Pod, all []*v1.Pod, decided func(admit.Verdict)) {
	g.mu.Lock()
	defer g.mu.Unlock()

	var verdict admit.Verdict
	if ending := g.ending(pod, all); len(ending) > 0 {
		verdict.Preempt = ending
	} else if g.check != nil {
		verdict = g.check(pod, g.active(pod, all))
		g.end(verdict.Preempt, pod)
	}

	decided(verdict)
}

// counts reports whether a pod takes up resources of the node.
func (g *Gate) counts(pod *v1.Pod) bool {
	return pod.Status.StartTime != nil || g.admitted[pod.UID] || g.waiting[pod.UID]
}

// active returns the pods beside which a new one must fit, with what they have been given. Victims of a
// critical pod count only for that one, which waits for them.
func (g *Gate) active(pod *v1.Pod, all []*v1.Pod) []*v1.Pod {
	var out []*v1.Pod
	for _, o := range all {
		if o.UID == pod.UID || !g.counts(o) || podsource.Mirror(o) || plan.Terminal(o.Status.Phase) {
			continue
		}
		if by, ends := g.victims[o.UID]; ends && by != pod.UID {
			continue
		}

		out = append(out, g.allocations.Of(o))
	}

	return out
}

package podworker

import (
	"context"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podsource"
)

// admitRetry is when a critical pod that waits for others to end is asked about again.
const admitRetry = 250 * time.Millisecond

// gate is what was decided about pods that are new on the node. The worker's lock guards it.
type gate struct {
	verdicts map[types.UID]admit.Verdict
	waiting  map[types.UID]bool      // critical pods for which others end
	victims  map[types.UID]types.UID // pods that end, and the critical pod they end for
}

func newGate() gate {
	return gate{
		verdicts: map[types.UID]admit.Verdict{},
		waiting:  map[types.UID]bool{},
		victims:  map[types.UID]types.UID{},
	}
}

func (g *gate) forget(uid types.UID) {
	delete(g.verdicts, uid)
	delete(g.waiting, uid)
	delete(g.victims, uid)
}

// decided lets a pod in or refuses it, once. It is false while that is open. A pod that has begun on this
// node is never asked about again: its resources are its own.
func (w *Worker) decided(ctx context.Context, p *pod, desired *v1.Pod, observed plan.Observed) bool {
	p.mu.Lock()
	done := p.admitted || p.memory.Ended != nil
	p.mu.Unlock()
	if done {
		return true
	}

	var verdict admit.Verdict
	switch {
	case desired.Status.StartTime != nil || len(observed.Sandboxes) > 0:
		w.mu.Lock()
		w.admitted[desired.UID] = true
		w.mu.Unlock()
	case desired.DeletionTimestamp == nil && w.Admit != nil: // one that goes unbegun needs no room
		verdict = w.ask(desired)
		if verdict.Reason == admit.NodeAffinity && w.Refresh != nil {
			w.Refresh(ctx)
			verdict = w.ask(desired)
		}
	}
	if len(verdict.Preempt) > 0 {
		return false
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	p.admitted = true
	if verdict.Reason != "" {
		p.memory.Ended = &plan.Ending{Reason: verdict.Reason, Message: "Pod was rejected: " + verdict.Message,
			At: time.Now()}
		w.events.Pod(desired, "", v1.EventTypeWarning, verdict.Reason, verdict.Message)
	}
	return true
}

// ask decides about one pod at a time, the oldest first: what it lets in counts for the next.
func (w *Worker) ask(pod *v1.Pod) admit.Verdict {
	all := w.pods.List()
	w.mu.Lock()
	defer w.mu.Unlock()

	for _, older := range w.open(all, pod) {
		w.judge(older, all)
	}
	if verdict, ok := w.gate.verdicts[pod.UID]; ok {
		return verdict
	}
	return w.judge(pod, all)
}

// open are the pods that came before a pod and are still to be decided about, oldest first. The caller
// holds the lock.
func (w *Worker) open(all []*v1.Pod, pod *v1.Pod) []*v1.Pod {
	var out []*v1.Pod
	for _, o := range all {
		_, judged := w.gate.verdicts[o.UID]
		begun := o.Status.StartTime != nil || w.admitted[o.UID] || w.gate.waiting[o.UID]
		over := plan.Terminal(o.Status.Phase) || o.DeletionTimestamp != nil || podsource.Mirror(o)
		if !judged && !begun && !over && o.CreationTimestamp.Before(&pod.CreationTimestamp) {
			out = append(out, o)
		}
	}
	slices.SortStableFunc(out, func(a, b *v1.Pod) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	return out
}

// judge decides about a pod beside those that count. The caller holds the lock.
func (w *Worker) judge(pod *v1.Pod, all []*v1.Pod) admit.Verdict {
	verdict := w.Admit(pod, w.counting(all, pod))
	switch {
	case len(verdict.Preempt) > 0:
		w.gate.waiting[pod.UID] = true
		for _, victim := range verdict.Preempt {
			w.gate.victims[victim.UID] = pod.UID
			w.Enqueue(victim.UID)
		}
		return verdict // asked about again when they have ended
	case verdict.Reason == admit.NodeAffinity:
		return verdict // the pod's own look asks again with the newest labels
	case verdict.Reason == "":
		w.admitted[pod.UID] = true
	}
	delete(w.gate.waiting, pod.UID)
	w.gate.verdicts[pod.UID] = verdict
	return verdict
}

// counting are the pods that a new one has to live with. Those that end for a critical pod count only for
// that one, which waits for them. The caller holds the lock.
func (w *Worker) counting(all []*v1.Pod, pod *v1.Pod) []*v1.Pod {
	var out []*v1.Pod
	for _, o := range all {
		in := o.Status.StartTime != nil || w.admitted[o.UID] || w.gate.waiting[o.UID]
		if o.UID == pod.UID || !in || podsource.Mirror(o) || plan.Terminal(o.Status.Phase) {
			continue
		}
		if by, ends := w.gate.victims[o.UID]; ends && by != pod.UID {
			continue
		}
		out = append(out, o)
	}
	return out
}

// yield ends a pod that is in the way of a critical one. The caller holds the pod's lock.
func (w *Worker) yield(p *pod) {
	w.mu.Lock()
	_, victim := w.gate.victims[p.uid]
	w.mu.Unlock()
	if !victim || p.memory.Ended != nil {
		return
	}
	const reason, message = "Preempting", "Preempted in order to admit critical pod"
	w.events.Pod(p.spec, "", v1.EventTypeWarning, reason, message)
	p.memory.Ended = &plan.Ending{
		Reason:     reason,
		Message:    message,
		Disruption: "Pod was preempted by Kubelet to accommodate a critical pod.",
		At:         time.Now(),
	}
}

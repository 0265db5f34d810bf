package podworker

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/plan"
)

// admitRetry is how long after a look a critical pod that waits for others to end is looked at again.
const admitRetry = 250 * time.Millisecond

// admit admits a pod or rejects it, once. It reports whether that is decided. A pod that has begun on this
// node is not judged again: it has its resources already.
func (w *Worker) admit(ctx context.Context, p *pod, desired *v1.Pod, observed plan.Observed) (decided bool) {
	p.mu.Lock()
	decided = p.admitted || p.plan.Terminated()
	p.mu.Unlock()
	if decided {
		return true
	}

	// A pod that goes before it has begun needs no room.
	var verdict admit.Verdict
	switch {
	case desired.Status.StartTime != nil || len(observed.Sandboxes) > 0:
		w.gate.Begun(desired.UID)
	case desired.DeletionTimestamp == nil:
		verdict = w.judge(ctx, desired)
	}

	if len(verdict.Preempt) > 0 {
		return false
	}

	p.mu.Lock()
	p.admitted = true
	p.mu.Unlock()

	if verdict.Reason != "" {
		w.deps.Meter.Rejected(verdict.Reason)
		w.deps.Events.Pod(desired, "", v1.EventTypeWarning, verdict.Reason, verdict.Message)
		p.terminate(plan.Ending{
			Reason:  verdict.Reason,
			Message: "Pod was rejected: " + verdict.Message,
			At:      time.Now(),
		})
	}

	return true
}

// judge has the gate decide, and once more with the node's newest labels where a label was missing.
func (w *Worker) judge(ctx context.Context, pod *v1.Pod) admit.Verdict {
	verdict := w.gate.Ask(pod, w.deps.Pods.List())
	if verdict.Reason == admit.NodeAffinity && w.cfg.Refresh != nil {
		w.cfg.Refresh(ctx)
		verdict = w.gate.Ask(pod, w.deps.Pods.List())
	}
	return verdict
}

// preempt ends a pod that is in the way of a critical one.
func (w *Worker) preempt(p *pod, pod *v1.Pod) {
	if !w.gate.Victim(p.uid) {
		return
	}

	w.deps.Meter.Preempted()
	w.endings.decide(p, pod, ending{Ending: plan.Ending{
		Reason:     "Preempting",
		Message:    "Preempted in order to admit critical pod",
		Disruption: "Pod was preempted by Kubelet to accommodate a critical pod.",
		At:         time.Now(),
	}})
}

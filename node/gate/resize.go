package gate

import (
	"cmp"
	"log/slog"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/allocation"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/queue"
)

// Meter counts what is done about resizes (kubeletmetric.Resizes). Reasons and triggers are kubelet's labels.
// It is called by many goroutines, and must not block.
type Meter interface {
	// Asked is called for each version of a pod that asks for other resources than the one before.
	Asked(before, now *v1.Pod)
	Infeasible(reason string)
	// Waits is called when a pod waits, for a reason of the API, and may be called again; with no reason,
	// when it waits no longer.
	Waits(pod *v1.Pod, reason string)
	// Decided is called when a pod that was deferred is so no longer, by resolution and, if it is accepted,
	// by what has led to the decision.
	Decided(pod *v1.Pod, waited time.Duration, resolution, trigger string)
	// GoesOn is called when the resize of a pod begins and ends.
	GoesOn(uid types.UID, on bool)
}

// unmetered counts nothing.
type unmetered struct{}

func (unmetered) Asked(_, _ *v1.Pod)                             {}
func (unmetered) Infeasible(string)                              {}
func (unmetered) Waits(*v1.Pod, string)                          {}
func (unmetered) Decided(*v1.Pod, time.Duration, string, string) {}
func (unmetered) GoesOn(types.UID, bool)                         {}

// Pods are those of the node (podsource.Source).
type Pods interface {
	List() []*v1.Pod
	// Settled reports whether all pods of a source are known.
	Settled(source string) bool
}

// Events sends Events about pods (event.Recorder).
type Events interface {
	Pod(pod *v1.Pod, container, kind, reason, message string)
}

// What leads to a decision about the resizes that are asked for, kubelet's.
const (
	podUpdated    = "pod_updated"
	podResized    = "pod_resized"
	podsRemoved   = "pods_removed"
	podTerminated = "pod_terminated"
	periodic      = "periodic_retry"
)

// How a deferred resize has ended, kubelet's.
const (
	accepted   = "accepted"
	reverted   = "reverted"
	terminated = "terminated"
)

// resizeRetry is how long after a decision the resizes are decided about again for which there was no room,
// if nothing has made room before.
const resizeRetry = 3 * time.Minute

// ResizeConfig is what Resizes work with.
type ResizeConfig struct {
	Gate        *Gate
	Allocations *allocation.Ledger
	Pods        Pods
	Queue       *queue.Queue
	Events      Events

	// Meter may be nil.
	Meter Meter

	// Able is what can be resized at all.
	Able allocation.Able
	Log  *slog.Logger
}

// Resizes decides which pods get the resources that their specifications ask for, one after the other in
// kubelet's order, and again when there may be room.
type Resizes struct{ cfg ResizeConfig }

// NewResizes returns what decides about resizes.
func NewResizes(cfg ResizeConfig) *Resizes {
	if cfg.Meter == nil {
		cfg.Meter = unmetered{}
	}
	return &Resizes{cfg: cfg}
}

// recordRetry is how long after a record could not be written that is tried again.
const recordRetry = time.Second

// Look takes the newest version of a pod, decides about the resize that it asks for, and returns what the pod
// has: nothing, if it is nil. A resize whose record cannot be written waits.
func (r *Resizes) Look(pod *v1.Pod) allocation.State {
	if pod == nil {
		return allocation.State{}
	}

	r.see(pod)
	state, err := r.cfg.Allocations.Keep(pod)
	if err != nil {
		r.cfg.Log.Warn("record what a pod has been given", "pod", pod.Namespace+"/"+pod.Name, "err", err)
		r.cfg.Queue.LookAfter(pod.UID, recordRetry, queue.Retry)
	}

	return state
}

// see decides about what a new version of a pod brings.
func (r *Resizes) see(pod *v1.Pod) {
	seen := r.cfg.Allocations.See(pod, time.Now())
	if seen.Before != nil {
		r.cfg.Meter.Asked(seen.Before, pod)
	}

	switch {
	case seen.Dropped != nil && seen.Over:
		r.settled(seen.Dropped, terminated, "")
	case seen.Dropped != nil:
		r.settled(seen.Dropped, reverted, "")
	}

	switch {
	case seen.Due:
		r.retry(podUpdated, pod.UID)
	case seen.Waits && time.Since(seen.Decided) >= resizeRetry:
		r.retry(periodic, pod.UID)
		r.cfg.Queue.LookAfter(pod.UID, resizeRetry, queue.ResizeDue)
	case seen.Waits:
		r.cfg.Queue.LookAfter(pod.UID, resizeRetry-time.Since(seen.Decided), queue.ResizeDue)
	case seen.Freed && seen.Over:
		r.retry(podTerminated, pod.UID)
	case seen.Freed:
		r.retry(podResized, pod.UID)
	}
}

// retry decides about all resizes that are asked for. self is the pod whose look this is.
func (r *Resizes) retry(trigger string, self types.UID) {
	if !r.cfg.Allocations.Waiting() || !r.cfg.Pods.Settled(podsource.SourceAPI) {
		return
	}

	all := r.cfg.Pods.List()
	for _, request := range r.cfg.Allocations.Requests() {
		news := false
		r.cfg.Gate.Resize(request.Pod, all, func(verdict admit.Verdict) {
			news = r.decide(request, verdict, trigger)
		})
		if news && request.Pod.UID != self {
			r.cfg.Queue.Look(request.Pod.UID, queue.ResizeDue)
		}
	}
}

// decide carries a decision out. It reports whether that is news for the pod.
func (r *Resizes) decide(request *allocation.Request, verdict admit.Verdict, trigger string) (news bool) {
	pod := request.Pod
	pending := plan.Pending{
		Reason:     v1.PodReasonDeferred,
		Message:    verdict.Message,
		Generation: pod.Generation,
	}

	// As with kubelet, the event has the reason of the check: OutOfcpu.
	what := cmp.Or(verdict.Reason, v1.PodReasonDeferred)

	label, impossible := allocation.Infeasible(request, r.cfg.Able)
	switch {
	case impossible != "":
		pending.Reason, what = v1.PodReasonInfeasible, v1.PodReasonInfeasible
		pending.Message = impossible
	case len(verdict.Preempt) > 0:
		pending.Message = "Node didn't have enough resource: waiting for preempted pods to end"
	case verdict.Reason == "":
		r.accept(request, trigger)
		return true
	}

	r.cfg.Meter.Waits(pod, pending.Reason)
	if !r.cfg.Allocations.Refuse(pod, pending, time.Now()) {
		return false
	}

	event := "ResizeDeferred"
	if pending.Reason == v1.PodReasonInfeasible {
		event = "ResizeInfeasible"
		r.cfg.Meter.Infeasible(label)
	}

	message := allocation.Event("Pod resize "+what, pod, pod.Generation, pending.Message)
	r.cfg.Events.Pod(pod, "", v1.EventTypeWarning, event, message)
	return true
}

// accept gives a pod what it asks for.
func (r *Resizes) accept(request *allocation.Request, trigger string) {
	pod := request.Pod
	r.cfg.Allocations.Grant(pod, time.Now())
	r.settled(request, accepted, trigger)
	r.cfg.Meter.GoesOn(pod.UID, true)

	message := allocation.Event("Pod resize started", pod, pod.Generation, "")
	r.cfg.Events.Pod(pod, "", v1.EventTypeNormal, "ResizeStarted", message)
}

// settled counts a request that waits no longer.
func (r *Resizes) settled(request *allocation.Request, resolution, trigger string) {
	r.cfg.Meter.Waits(request.Pod, "")
	if p := request.Pending; p != nil && p.Reason == v1.PodReasonDeferred {
		r.cfg.Meter.Decided(request.Pod, time.Since(request.Since), resolution, trigger)
	}
}

// Forget drops a pod that has gone, and lets others have what it had.
func (r *Resizes) Forget(uid types.UID) {
	r.cfg.Gate.Forget(uid)
	r.cfg.Allocations.Forget(uid)
	r.cfg.Meter.GoesOn(uid, false)
	r.retry(podsRemoved, "")
}

// Completed tells that the resources of a grant are in force everywhere. What was taken from the pod is free.
func (r *Resizes) Completed(pod *v1.Pod, grant *plan.Grant) {
	r.cfg.Meter.GoesOn(pod.UID, false)
	message := allocation.Event("Pod resize completed", pod, grant.Generation, "")
	r.cfg.Events.Pod(pod, "", v1.EventTypeNormal, "ResizeCompleted", message)
}

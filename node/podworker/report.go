package podworker

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trivet-node/trivet/node/allocation"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/queue"
	"github.com/trivet-node/trivet/node/reason"
	"github.com/trivet-node/trivet/node/status"
)

// patience is how long a change on the way, of a pending pod or of a container that is being replaced, may
// wait to be shown together with what follows it.
const patience = 300 * time.Millisecond

// reportRetry is how long after a failure a status is sent again.
const reportRetry = time.Second

// reporter brings the API's status of pods up to date, by patches without a read before them. They are sent
// beside the looks; the next patch of a pod waits for the answer to the one before.
type reporter struct {
	pods   Pods
	api    API
	queue  *queue.Queue
	events Events
	meter  Meter
	log    *slog.Logger
	steps  *sync.WaitGroup
	node   status.Node
}

// patching is where the report of a pod's status stands.
type patching struct {
	// sending means that a patch is on its way.
	sending bool

	// missed means that a look has left its status to the one after the patch.
	missed bool

	// since is when a change that can wait was first seen; zero: none waits.
	since time.Time

	// noticed is when the change that the API does not show yet was first seen, and base what it shows.
	noticed time.Time
	base    *v1.PodStatus
}

// report sends the status of a pod if the API shows another one. sending says that a patch was on its way
// when the look began: then the status is left to the look that follows the answer.
func (r *reporter) report(ctx context.Context, p *pod, view *plan.View, sending bool) error {
	if sending {
		r.leave(p)
		return nil
	}

	base, known := r.shown(view.Pod)
	if !known {
		return nil
	}

	// A change that users do not wait for may be overtaken by the next one within a moment.
	want := status.Compute(view, r.node)
	changed := !status.Equal(&base.Status, &want)
	urgent := changed && status.Urgent(&base.Status, &want) && !status.Replacing(view)
	if wait := p.hold(changed, urgent, view.Now); wait > 0 {
		r.queue.LookAfter(p.uid, wait, queue.StatusDue)
		return nil
	}

	if !changed {
		return nil
	}

	patch, err := status.Patch(base, &want)
	if err != nil {
		return err
	}

	p.mu.Lock()
	p.patch.sending = true
	p.patch.base = &base.Status
	p.mu.Unlock()
	r.steps.Go(func() { r.send(ctx, p, view.Pod, &want, patch) })
	return nil
}

// leave leaves the status to the look after the patch that is on its way. If the answer has come since the
// look began, that look must be asked for here.
func (r *reporter) leave(p *pod) {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.patch.missed = p.patch.sending
	if !p.patch.sending {
		r.queue.Look(p.uid, queue.StatusSent)
	}
}

// hold returns how long a change of the status still has to wait. It is 0 if the change is to be shown now,
// or if there is none.
func (p *pod) hold(changed, urgent bool, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()

	switch {
	case !changed:
		p.patch.noticed = time.Time{}
	case p.patch.noticed.IsZero():
		p.patch.noticed = now
	}

	if !changed || urgent {
		p.patch.since = time.Time{}
		return 0
	}

	if p.patch.since.IsZero() {
		p.patch.since = now
	}

	left := patience - now.Sub(p.patch.since)
	if left <= 0 {
		p.patch.since = time.Time{}
	}

	return max(left, 0)
}

// shown is what the API shows of a pod, the base of the next patch of its status; of a static pod that is its
// mirror. Until the API's list is there it is not known what a mirror shows, and nothing can be reported.
func (r *reporter) shown(pod *v1.Pod) (base *v1.Pod, known bool) {
	if !podsource.Static(pod) {
		return pod, true
	}

	mirror, known := r.pods.MirrorOf(pod)
	if !known {
		return nil, false
	}

	out := *pod
	out.Status = v1.PodStatus{}
	if mirror != nil && podsource.StaticOf(mirror) == pod.UID && mirror.DeletionTimestamp == nil {
		out.Status = mirror.Status
	}

	return &out, true
}

// send patches the status, and takes the answer before another patch may be sent. A final status leads to a
// look, because the pod's teardown waits until the API shows it.
func (r *reporter) send(ctx context.Context, p *pod, pod *v1.Pod, want *v1.PodStatus, patch []byte) {
	traced, ended := p.trace.Begin(ctx, "patch status", "")
	updated, err := r.api.PatchStatus(traced, pod, patch)
	ended(err)
	if err == nil {
		p.trace.Shown(want)
		r.pods.Saw(updated)
		r.announce(pod, want)
		r.measure(p, pod, want)
	}

	p.mu.Lock()
	again := p.patch.missed || plan.Terminal(want.Phase) || err == nil && changedByOthers(pod, updated)
	p.patch.sending = false
	p.patch.missed = false
	p.patch.base = nil
	p.mu.Unlock()

	// A pod that was deleted, or recreated under its name, is for the watch to report.
	answered := err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err)
	if answered {
		if again {
			r.queue.Look(p.uid, queue.StatusSent)
		}

		return
	}

	if ctx.Err() == nil {
		r.log.Warn("report status", "pod", fullName(pod), "err", err)
		r.queue.LookAfter(p.uid, reportRetry, queue.Retry)
	}
}

// measure counts a status that the API shows now.
func (r *reporter) measure(p *pod, pod *v1.Pod, want *v1.PodStatus) {
	now := time.Now()
	start := p.start.Shown(pod, want, now)

	p.mu.Lock()
	base := p.patch.base
	took := now.Sub(cmp.Or(p.patch.noticed, now))
	p.patch.noticed = time.Time{}
	p.mu.Unlock()

	r.meter.StatusShown(base, want, took, start)
}

// changedByOthers reports whether somebody else has changed the pod before the patch reached it. The watch
// will report that change too late: the pod that the answer brought is as new, so nothing seems to have
// changed.
func changedByOthers(before, after *v1.Pod) bool {
	sameGrace := equality.Semantic.DeepEqual(
		before.DeletionGracePeriodSeconds,
		after.DeletionGracePeriodSeconds,
	)
	return before.Generation != after.Generation ||
		!sameGrace ||
		!maps.Equal(before.Labels, after.Labels) ||
		!maps.Equal(before.Annotations, after.Annotations) ||
		!status.SameForeign(&before.Status, &after.Status)
}

// announce sends events about the containers that begin to wait for a back-off.
func (r *reporter) announce(pod *v1.Pod, want *v1.PodStatus) {
	for _, s := range status.BackingOff(&pod.Status, want) {
		switch s.State.Waiting.Reason {
		case status.ReasonCrashLoop:
			message := fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)",
				s.Name, pod.Name, pod.Namespace, pod.UID)
			r.events.Pod(pod, s.Name, v1.EventTypeWarning, "BackOff", message)
		case status.ReasonPullBackOff:
			message := fmt.Sprintf("Back-off pulling image %q", s.Image)
			r.events.Pod(pod, s.Name, v1.EventTypeNormal, "BackOff", message)
		}
	}
}

// Steps send the events of what they do: Pulling, Started, Killing. Those of a step that failed are sent here
// and nowhere else.

// reportFailure sends the events of a failed step, with kubelet's reasons, and logs it.
func (w *Worker) reportFailure(pod *v1.Pod, s plan.Step, err error) {
	for _, e := range failures(pod, s, err) {
		w.deps.Events.Pod(pod, s.Name, v1.EventTypeWarning, e.Reason, e.Message)
	}

	w.deps.Log.Warn("step failed",
		"pod", fullName(pod),
		"step", s.Key(),
		"reason", reason.Of(err),
		"err", err,
	)
}

// failures returns the events of a failed step: first that of the error itself, if it has one, then that of
// the step.
func failures(pod *v1.Pod, s plan.Step, err error) (out []reason.Event) {
	if e := reason.EventOf(err); e != nil {
		out = append(out, *e)
	}

	switch s.Verb {
	case plan.Prepare:
		why := cmp.Or(reason.Of(err), "FailedMount")
		out = append(out, reason.Event{Reason: why, Message: err.Error()})
	case plan.CreateSandbox:
		message := fmt.Sprintf("Failed to create pod sandbox: %v", err)
		out = append(out, reason.Event{Reason: "FailedCreatePodSandBox", Message: message})
	case plan.StopSandbox:
		message := fmt.Sprintf("error killing pod: %v", err)
		out = append(out, reason.Event{Reason: "FailedKillPod", Message: message})
	case plan.Pull:
		out = append(out, reason.Event{Reason: "Failed", Message: "Error: " + reason.Of(err)})
	case plan.Start:
		out = append(out, reason.Event{Reason: "Failed", Message: fmt.Sprintf("Error: %v", err)})
	case plan.Resize:
		message := allocation.Event("Pod resize error", pod, s.Grant.Generation, err.Error())
		out = append(out, reason.Event{Reason: "ResizeError", Message: message})
	}

	return out
}

package podworker

import (
	"context"
	"fmt"
	"maps"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/status"
)

// patience is how long a change on the way, of a pending pod or of a container that is being replaced, may
// wait to be shown together with what follows it.
const patience = 300 * time.Millisecond

// sending is the key of the step that patches the status. The plan does not know it: it waits for what the
// API shows.
const sending = "report"

// reportRetry is how long after a failure a status is sent again.
const reportRetry = time.Second

// report brings the API's status up to date, by a patch without a read before it. It is sent beside, one at a
// time for each pod: what changes meanwhile is found by a look when the answer is here.
func (w *Worker) report(ctx context.Context, p *pod, in plan.Input, d plan.Decision) error {
	if in.Memory.InFlight[sending] {
		p.mu.Lock()
		p.unreported = p.memory.InFlight[sending]
		over := !p.unreported
		p.mu.Unlock()

		// just now: this look may not have seen the answer
		if over {
			w.Enqueue(p.uid)
		}

		return nil
	}

	base, known := w.shown(in.Pod)
	if !known {
		return nil
	}

	want := status.Compute(status.Input{
		Input:    in,
		Decision: d,
		HostIPs:  w.HostIPs,
		Runtime:  w.RuntimeName,
	})
	if status.Equal(&base.Status, &want) {
		p.shown = time.Time{}
		return nil
	}

	if !status.Urgent(&base.Status, &want) || status.Replacing(in, d) {
		if p.shown.IsZero() {
			p.shown = in.Now
		}

		if left := patience - in.Now.Sub(p.shown); left > 0 {
			w.queue.AddAfter(p.uid, left)
			return nil
		}
	}

	p.shown = time.Time{}
	patch, err := status.Patch(base, &want)
	if err != nil {
		return err
	}

	p.mu.Lock()
	p.memory.InFlight[sending] = true
	p.mu.Unlock()
	w.steps.Go(func() { w.send(ctx, p, in.Pod, &want, patch) })
	return nil
}

// send patches the status and takes the answer before another patch may be sent. The pod's end waits for the
// last one.
func (w *Worker) send(ctx context.Context, p *pod, pod *v1.Pod, want *v1.PodStatus, patch []byte) {
	updated, err := w.api.PatchStatus(ctx, pod, patch)
	if err == nil {
		w.pods.Saw(updated)
		w.announce(pod, want)
	}

	p.mu.Lock()
	delete(p.memory.InFlight, sending)
	again := p.unreported || plan.Terminal(want.Phase) || err == nil && others(pod, updated)
	p.unreported = false
	p.mu.Unlock()
	switch {
	case err == nil, apierrors.IsNotFound(err), apierrors.IsConflict(err):
		// deleted, or another pod of this name: the watch will tell
		if again {
			w.Enqueue(p.uid)
		}

	case ctx.Err() == nil:
		w.log.Warn("report status", "pod", pod.Namespace+"/"+pod.Name, "err", err)
		w.queue.AddAfter(p.uid, reportRetry)
	}
}

// others reports whether somebody else has changed the pod before our patch reached it. The watch tells of
// that later, when it is not new any more.
func others(before, after *v1.Pod) bool {
	return before.Generation != after.Generation ||
		!equality.Semantic.DeepEqual(before.DeletionGracePeriodSeconds, after.DeletionGracePeriodSeconds) ||
		!maps.Equal(before.Labels, after.Labels) || !maps.Equal(before.Annotations, after.Annotations) ||
		!status.SameOfOthers(&before.Status, &after.Status)
}

// announce tells of containers that begin to wait for their back-off.
func (w *Worker) announce(pod *v1.Pod, want *v1.PodStatus) {
	waiting := func(all []v1.ContainerStatus, name string) string {
		for _, s := range all {
			if s.Name == name && s.State.Waiting != nil {
				return s.State.Waiting.Reason
			}
		}

		return ""
	}

	for _, pair := range [][2][]v1.ContainerStatus{
		{pod.Status.InitContainerStatuses, want.InitContainerStatuses},
		{pod.Status.ContainerStatuses, want.ContainerStatuses},
	} {
		for _, s := range pair[1] {
			reason := waiting(pair[1], s.Name)
			if reason == waiting(pair[0], s.Name) {
				continue
			}

			switch reason {
			case status.ReasonCrashLoop:
				w.events.Pod(
					pod,
					s.Name,
					v1.EventTypeWarning,
					"BackOff",
					fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)",
						s.Name, pod.Name, pod.Namespace, pod.UID),
				)

			case "ImagePullBackOff":
				w.events.Pod(
					pod,
					s.Name,
					v1.EventTypeNormal,
					"BackOff",
					fmt.Sprintf("Back-off pulling image %q", s.Image),
				)
			}
		}
	}
}

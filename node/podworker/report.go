package podworker

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/status"
)

// patience is how long a change on the way, of a pending pod or of a container that is being replaced, may wait to be shown together with what
// follows it.
const patience = 300 * time.Millisecond

// report brings the API's status up to date, by a patch without a read before it.
func (w *Worker) report(ctx context.Context, p *pod, in plan.Input, d plan.Decision) error {
	want := status.Compute(status.Input{Input: in, Decision: d, HostIPs: w.HostIPs, Runtime: w.RuntimeName})
	unseen := podsource.Static(in.Pod) && !w.pods.HasMirror(in.Pod)
	if status.Equal(&in.Pod.Status, &want) && !unseen {
		p.shown = time.Time{}
		return nil
	}
	if wait := !status.Urgent(&in.Pod.Status, &want) || status.Replacing(in, d); wait && !unseen {
		if p.shown.IsZero() {
			p.shown = in.Now
		}
		if left := patience - in.Now.Sub(p.shown); left > 0 {
			w.queue.AddAfter(p.uid, left)
			return nil
		}
	}
	p.shown = time.Time{}
	w.announce(in.Pod, &want)
	patch, err := status.Patch(in.Pod, &want)
	if err != nil {
		return err
	}
	updated, err := w.api.PatchStatus(ctx, in.Pod, patch)
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil // deleted, or another pod of this name: the watch will tell
	case err != nil:
		return err
	}
	w.pods.Saw(updated)
	if plan.Terminal(want.Phase) && !plan.Terminal(in.Pod.Status.Phase) {
		w.Enqueue(p.uid) // the last step waits for this
	}
	return nil
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
	for _, pair := range [][2][]v1.ContainerStatus{{pod.Status.InitContainerStatuses, want.InitContainerStatuses}, {pod.Status.ContainerStatuses, want.ContainerStatuses}} {
		for _, s := range pair[1] {
			reason := waiting(pair[1], s.Name)
			if reason == waiting(pair[0], s.Name) {
				continue
			}
			switch reason {
			case status.ReasonCrashLoop:
				w.events.Pod(pod, s.Name, v1.EventTypeWarning, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", s.Name, pod.Name, pod.Namespace, pod.UID))
			case "ImagePullBackOff":
				w.events.Pod(pod, s.Name, v1.EventTypeNormal, "BackOff", fmt.Sprintf("Back-off pulling image %q", s.Image))
			}
		}
	}
}

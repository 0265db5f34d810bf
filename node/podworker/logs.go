package podworker

import (
	"context"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podlog"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/termination"
)

// logged returns, for each container of a static pod, the attempt that follows those whose logs are there:
// after a reboot nothing else may know of them, neither the runtime nor, yet, the API.
func (w *Worker) logged(pod *v1.Pod, observed plan.Observed) map[string]uint32 {
	if !podsource.Static(pod) || len(observed.Containers) > 0 {
		return nil
	}
	out := map[string]uint32{}
	for c := range podspec.Regular(pod) {
		if next := w.Logs.NextAttempt(pod, c.Name); next > 0 {
			out[c.Name] = next
		}
	}
	return out
}

// removeContainer removes an instance with its logs and its termination message.
func (w *Worker) removeContainer(ctx context.Context, in plan.Input, id string) error {
	if err := w.runtime.RemoveContainer(ctx, id); err != nil {
		return err
	}

	for _, c := range in.Observed.Containers {
		if c.ID != id {
			continue
		}

		instance := podlog.Instance{
			Pod:       in.Pod,
			Container: c.Name,
			Attempt:   c.Attempt,
			ID:        c.ID,
		}
		if err := w.Logs.Remove(instance); err != nil {
			return err
		}
		if err := termination.Remove(w.podDir(in.Pod), c.Name, c.Attempt); err != nil {
			return err
		}
	}

	return nil
}

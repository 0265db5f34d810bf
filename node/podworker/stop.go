package podworker

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/hook"
	"github.com/trivet-node/trivet/node/plan"
)

// stop runs the preStop hook and stops the container, both within the grace.
func (w *Worker) stop(ctx context.Context, in plan.Input, s plan.Step) error {
	spec := findSpec(in.Pod, s.Name)
	w.events.Pod(in.Pod, s.Name, v1.EventTypeNormal, "Killing", stopMessage(s))
	grace, began := s.Grace, time.Now()
	if spec != nil && spec.Lifecycle != nil && spec.Lifecycle.PreStop != nil && grace > 0 {
		hookCtx, cancel := context.WithTimeout(ctx, grace)
		target := hook.Target{ID: s.ID, Spec: spec, IP: firstIP(w.podIPs(in.Pod, in.Observed))}
		err := hook.Run(hookCtx, w.runtime, spec.Lifecycle.PreStop, target)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}

		if err != nil {
			w.events.Pod(
				in.Pod,
				s.Name,
				v1.EventTypeWarning,
				"FailedPreStopHook",
				fmt.Sprintf("PreStopHook failed: %v", err),
			)
		}
	}

	err := w.runtime.StopContainer(ctx, s.ID, max(grace-time.Since(began), plan.LeastGrace))
	if ctx.Err() != nil {
		return ctx.Err()
	}

	return err
}

func stopMessage(s plan.Step) string {
	switch s.Why {
	case "Liveness":
		return fmt.Sprintf("Container %s failed liveness probe, will be restarted", s.Name)
	case "Startup":
		return fmt.Sprintf("Container %s failed startup probe, will be restarted", s.Name)
	case "Changed":
		return fmt.Sprintf("Container %s definition changed, will be restarted", s.Name)
	}
	return fmt.Sprintf("Stopping container %s", s.Name)
}

package podworker

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/hook"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podspec"
)

// stop runs the preStop hook and stops the container, both within the grace. What the hook leaves of it is at
// least LeastGrace.
func (e *executor) stop(ctx context.Context, view *plan.View, s plan.Step) error {
	began := time.Now()
	e.deps.Events.Pod(view.Pod, s.Name, v1.EventTypeNormal, "Killing", stopMessage(s))
	if err := e.preStop(ctx, view, s); err != nil {
		return err
	}
	return e.deps.Runtime.StopContainer(ctx, s.ID, max(s.Grace-time.Since(began), plan.LeastGrace))
}

// preStop runs the hook, if there is one and time for it. A hook that fails does not keep its container from
// being stopped, so the error is that of ctx.
func (e *executor) preStop(ctx context.Context, view *plan.View, s plan.Step) error {
	spec := podspec.Find(view.Pod, s.Name)
	if spec == nil || spec.Lifecycle == nil || spec.Lifecycle.PreStop == nil || s.Grace <= 0 {
		return nil
	}

	hookCtx, cancel := context.WithTimeout(ctx, s.Grace)
	defer cancel()

	target := hook.Target{ID: s.ID, Spec: spec, IP: firstIP(view.IPs(e.cfg.HostIPs))}
	err := hook.Run(hookCtx, e.deps.Runtime, spec.Lifecycle.PreStop, target)
	if err != nil && ctx.Err() == nil {
		message := fmt.Sprintf("PreStopHook failed: %v", err)
		e.deps.Events.Pod(view.Pod, s.Name, v1.EventTypeWarning, "FailedPreStopHook", message)
	}

	return ctx.Err()
}

// stopMessage is the text of the event, in kubelet's words.
func stopMessage(s plan.Step) string {
	switch s.Why {
	case plan.FailedLiveness:
		return fmt.Sprintf("Container %s failed liveness probe, will be restarted", s.Name)
	case plan.FailedStartup:
		return fmt.Sprintf("Container %s failed startup probe, will be restarted", s.Name)
	case plan.Changed:
		return fmt.Sprintf("Container %s definition changed, will be restarted", s.Name)
	case plan.Resized:
		return fmt.Sprintf("Container %s resize requires restart", s.Name)
	}
	return fmt.Sprintf("Stopping container %s", s.Name)
}

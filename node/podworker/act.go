package podworker

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/plan"
)

// failure is an error of a step with the reason that users see.
type failure struct {
	reason string
	err    error
	quiet  bool // the event was sent already, or is not wanted
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// fail gives err a reason.
func fail(reason string, err error) error { return &failure{reason: reason, err: err} }

// beginAll starts the decided steps; each runs beside and enqueues the pod when it ends.
func (w *Worker) beginAll(ctx context.Context, p *pod, in plan.Input, d plan.Decision) {
	for _, s := range d.Steps {
		run := w.action(p, in, s)
		p.mu.Lock()
		p.memory.InFlight[s.Key()] = true
		ctx := w.contextOf(ctx, p, s)
		p.mu.Unlock()
		w.steps.Go(func() { w.done(p, s, givenUp(ctx, run(ctx))) })
	}
}

// givenUp makes what came of a step that is not wanted any more the context's error: over CRI it has become
// a text, which would be told as a failure.
func givenUp(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (w *Worker) backoffLimit() time.Duration {
	if w.MaxBackoff > 0 {
		return w.MaxBackoff
	}
	return plan.MaxBackoff
}

// contextOf gives a step the context that ends when it is not wanted any more.
func (w *Worker) contextOf(ctx context.Context, p *pod, s plan.Step) context.Context {
	switch s.Verb {
	case plan.Prepare, plan.CreateSandbox, plan.Pull, plan.Start:
		return p.starting
	case plan.Stop:
		return p.stopping
	}
	return ctx
}

// action is the function that does the step.
func (w *Worker) action(p *pod, in plan.Input, s plan.Step) func(context.Context) error {
	switch s.Verb {
	case plan.Prepare:
		return func(ctx context.Context) error { return w.prepare(ctx, p, in.Pod) }
	case plan.CreateSandbox:
		return func(ctx context.Context) error { return w.createSandbox(ctx, in.Pod, s.Attempt) }
	case plan.Pull:
		return func(ctx context.Context) error { return w.pull(ctx, p, in.Pod, s.Name) }
	case plan.Start:
		return func(ctx context.Context) error { return w.start(ctx, p, in, s) }
	case plan.Stop:
		return func(ctx context.Context) error { return w.stop(ctx, in, s) }
	case plan.StopSandbox:
		return func(ctx context.Context) error { return w.runtime.StopSandbox(ctx, s.ID) }
	case plan.RemoveSandbox:
		return func(ctx context.Context) error { return w.runtime.RemoveSandbox(ctx, s.ID) }
	case plan.RemoveContainer:
		return func(ctx context.Context) error { return w.removeContainer(ctx, in, s.ID) }
	case plan.Teardown:
		return func(ctx context.Context) error { return w.teardown(ctx, p, in.Pod) }
	case plan.Finalize:
		return func(ctx context.Context) error { return w.api.Delete(ctx, in.Pod) }
	case plan.Forget:
		return func(context.Context) error { return w.farewell(in.Pod) }
	}

	return func(context.Context) error { return fmt.Errorf("step %s is not known", s.Verb) }
}

// done keeps what came of a step and has the pod looked at again.
func (w *Worker) done(p *pod, s plan.Step, err error) {
	p.mu.Lock()
	key := s.Key()
	if err == nil && s.Verb == plan.Finalize {
		// stays in flight: finalizers of others may keep the object for long
		p.mu.Unlock()
		return
	}

	delete(p.memory.InFlight, key)
	switch {
	case err == nil:
		delete(p.memory.Failures, key)
		p.succeeded(s)
	case errors.Is(err, context.Canceled):
		// not wanted any more, or to be done in another way
	default:
		p.memory.Failures[key] = nextFailure(p.memory.Failures[key], s, err)
	}

	if s.Verb == plan.Start && s.Restart && !errors.Is(err, context.Canceled) {
		p.memory.Backoffs[s.Name] = p.memory.Backoffs[s.Name].Next(time.Now(), w.backoffLimit())
	}

	if s.Verb == plan.Start {
		// the next start looks again
		delete(p.images, s.Name)
	}

	spec := p.spec
	p.mu.Unlock()
	if err != nil && !errors.Is(err, context.Canceled) {
		w.tell(spec, s, err)
	}

	if s.Verb == plan.Forget && err == nil {
		w.probes.Sync(spec, "", nil)
		w.forget(p.uid)
	}

	w.Enqueue(p.uid)
}

// succeeded remembers what a step made. The caller holds the lock.
func (p *pod) succeeded(s plan.Step) {
	switch s.Verb {
	case plan.Prepare:
		p.memory.Prepared = p.prepared == p.changes
	case plan.StopSandbox:
		p.memory.Stopped[s.ID] = true
	case plan.Teardown:
		p.memory.TornDown, p.memory.Prepared, p.volumes = true, false, nil
	}
}

// Retries of failed steps: short ones first, as most causes go away by themselves, or are announced by an
// event.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
	firstPull  = 10 * time.Second // of images and containers, as kubelet
	lastPull   = 300 * time.Second
)

func nextFailure(old plan.Failure, s plan.Step, err error) plan.Failure {
	first, last := firstRetry, lastRetry
	if s.Verb == plan.Pull {
		first, last = firstPull, lastPull
	}

	now := time.Now()
	delay := min(first<<min(old.Count, 10), last)
	f := plan.Failure{
		At:      now,
		Retry:   now.Add(delay),
		Count:   old.Count + 1,
		Message: err.Error(),
	}
	if x, ok := errors.AsType[*failure](err); ok {
		f.Reason = x.reason
	}

	return f
}

// tell reports a step that failed: to the user as an event with kubelet's reason, else to the log.
func (w *Worker) tell(pod *v1.Pod, s plan.Step, err error) {
	reason := ""
	if x, ok := errors.AsType[*failure](err); ok {
		reason = x.reason
		if x.quiet {
			return
		}
	}

	switch s.Verb {
	case plan.CreateSandbox:
		w.events.Pod(
			pod,
			"",
			v1.EventTypeWarning,
			"FailedCreatePodSandBox",
			fmt.Sprintf("Failed to create pod sandbox: %v", err),
		)

	case plan.StopSandbox:
		w.events.Pod(pod, "", v1.EventTypeWarning, "FailedKillPod", fmt.Sprintf("error killing pod: %v", err))
	case plan.Pull:
		w.events.Pod(pod, s.Name, v1.EventTypeWarning, "Failed", "Error: "+reason)
	case plan.Start:
		w.events.Pod(pod, s.Name, v1.EventTypeWarning, "Failed", fmt.Sprintf("Error: %v", err))
	}

	w.log.Warn("step failed",
		"pod", pod.Namespace+"/"+pod.Name, "step", s.Key(), "reason", reason, "err", err)
}

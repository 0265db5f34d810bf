package podworker

import (
	"context"
	"errors"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/allocation"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/podtiming"
	"github.com/trivet-node/trivet/node/probe"
	"github.com/trivet-node/trivet/node/queue"
)

// look is one round for one pod: observe, decide, begin the steps, report.
func (w *Worker) look(ctx context.Context, uid types.UID, why queue.Reasons) error {
	// This comes first: a step that ends from here on may not show in what is observed.
	began := time.Now()
	asked := w.deps.Queue.Asked(uid)
	sending := false
	if p := w.find(uid); p != nil {
		sending = p.beginLook(why)
	}

	desired := w.deps.Pods.Get(uid)
	w.deps.Log.Debug("look at pod", "pod", fullName(desired), "uid", uid, "why", why)
	if desired != nil && podsource.Mirror(desired) {
		w.mirrors.look(ctx, desired)
		return nil
	}

	observed, err := w.deps.Runtime.Observe(ctx, string(uid))
	if err != nil {
		return err
	}

	p, err := w.mayWork(ctx, uid, desired, observed)
	if p == nil {
		return err
	}

	if desired != nil {
		p.trace.See(w.deps.Traces, desired, began)
		p.start.See(desired, asked)
	}

	// Probes are set before the decision: a container without a startup probe counts as started from here on,
	// and no event will come to say so.
	view := w.see(p, w.resizes.Look(desired), observed)
	health := w.deps.Probes.Sync(view.Pod, firstIP(view.IPs(w.cfg.HostIPs)), w.probed(p, &view))

	// From here on steps run beside the look.
	d := w.decide(ctx, p, health)
	w.measure(p, d, why, asked, began)
	if d.View.Ending {
		w.deps.Probes.StopLiveness(uid)
	}
	if d.Ended != nil {
		w.deps.Events.Pod(d.View.Pod, "", v1.EventTypeNormal, d.Ended.Reason, d.Ended.Message)
	}

	// The end of a pod that has gone must not be shown by one that has come back under its UID: that would
	// never start.
	if !view.Gone {
		if err := w.reporter.report(ctx, p, &d.View, sending); err != nil {
			return err
		}
	}

	if !d.Requeue.IsZero() {
		w.deps.Queue.LookAfter(uid, time.Until(d.Requeue), queue.TimerDue)
	}

	return nil
}

// mayWork returns what is known of a pod whose look may go on. It returns nil if the look must end here: the
// pod may only be unknown yet, it waits for another one, or nothing is left of it.
func (w *Worker) mayWork(
	ctx context.Context,
	uid types.UID,
	desired *v1.Pod,
	observed plan.Observed,
) (*pod, error) {
	if desired == nil {
		return w.mayEnd(uid, observed), nil
	}

	free, err := w.nameIsFree(ctx, desired, observed)
	if !free || err != nil {
		w.deps.Queue.LookAfter(uid, nameRetry, queue.NameFreed)
		return nil, err
	}

	p := w.pod(uid)
	w.endings.recall(p, desired)
	w.preempt(p, desired)
	if !w.admit(ctx, p, desired, observed) {
		w.deps.Queue.LookAfter(uid, admitRetry, queue.AdmissionDue)
		return nil, nil
	}

	return p, nil
}

// mayEnd returns what is known of a pod that is not desired and has to be taken down, nil if nothing is to be
// done. Before all pods of its source are known it may still be desired: the list, when it comes, leads to a
// look. One that is down lets another static pod have its name.
func (w *Worker) mayEnd(uid types.UID, observed plan.Observed) *pod {
	known := w.find(uid)
	if !w.hasGone(known, observed) {
		return nil
	}

	// The list may have come since this look began, with the pod in it.
	if w.deps.Pods.Get(uid) != nil {
		w.deps.Queue.Look(uid, queue.PodChanged)
		return nil
	}

	if len(observed.Sandboxes) == 0 && (known == nil || known.spec() == nil) {
		w.forget(uid)
		return nil
	}

	p := w.pod(uid)
	if p.isDown() {
		w.freeName(uid)
	}

	return p
}

// see gives the plan what is desired, as far as it is given, and what the node has.
func (w *Worker) see(p *pod, desired allocation.State, observed plan.Observed) plan.View {
	p.mu.Lock()
	defer p.mu.Unlock()

	if desired.Pod == nil {
		p.plan.Gone()
	} else {
		if p.plan.Want(desired.Pod) {
			w.deps.Objects.Register(desired.Pod)
		}

		p.plan.Given(desired.Grant, desired.Pending)
		if p.wasHealth == nil {
			p.wasHealth = healthShown(desired.Pod)
		}
	}

	if spec := p.plan.Spec(); spec != nil {
		observed.Mounted = p.volumes.Cover(spec)
		observed.Logged = w.logged(spec, observed)
	}

	return p.plan.See(observed)
}

// logged returns, for each container of a static pod and of one whose containers may be restarted all at
// once, the attempt that follows those whose logs are there: after a reboot, or after the instances were
// removed, nothing else may know of them, neither the runtime nor, yet, the API.
func (w *Worker) logged(pod *v1.Pod, observed plan.Observed) map[string]uint32 {
	if !podsource.Static(pod) && !plan.MayRestartAll(pod) || len(observed.Containers) > 0 {
		return nil
	}

	out := map[string]uint32{}
	for c := range podspec.Regular(pod) {
		if next := w.cfg.Logs.NextAttempt(pod, c.Name); next > 0 {
			out[c.Name] = next
		}
	}

	return out
}

// probed returns the running containers that are to be probed: none of a pod that is not desired any more.
func (w *Worker) probed(p *pod, view *plan.View) []probe.Instance {
	if view.Gone {
		return nil
	}

	p.mu.Lock()
	shown := p.wasHealth
	p.mu.Unlock()

	var out []probe.Instance
	for _, c := range view.Observed.Containers {
		spec := podspec.Find(view.Pod, c.Name)
		if c.State != plan.Running || spec == nil {
			continue
		}

		was, known := shown[w.cfg.RuntimeName+"://"+c.ID]
		out = append(out, probe.Instance{
			ID:         c.ID,
			Spec:       spec,
			Started:    c.Started,
			WasStarted: known && was.Started != nil && *was.Started,
			WasReady:   known && was.Ready,
		})
	}

	return out
}

// decide has the plan decide, cancels the steps that are no longer wanted and begins the new ones. All of it
// is under the pod's lock, so that no step ends in between.
func (w *Worker) decide(ctx context.Context, p *pod, health map[string]plan.Health) *plan.Decision {
	p.mu.Lock()
	defer p.mu.Unlock()

	d := p.plan.Decide(health, time.Now())
	if d.Resized != nil {
		w.resizes.Completed(d.View.Pod, d.Resized)
	}

	for _, key := range d.Cancel {
		p.cancels[key]()
	}

	for _, s := range d.Steps {
		p.plan.Begin(s)
		stepCtx, cancel := context.WithCancel(ctx)
		p.cancels[s.Key()] = cancel
		w.steps.Go(func() {
			defer cancel()

			traced, ended := p.trace.Begin(stepCtx, s.Verb.String(), s.Name)
			err := w.executor.do(traced, p, &d.View, s)
			ended(err)
			if _, final := errors.AsType[answered](err); err != nil && stepCtx.Err() != nil && !final {
				// Over CRI the cancellation has become a text, which would look like a failure.
				err = stepCtx.Err()
			}

			w.done(p, s, err)
		})
	}

	return &d
}

// measure counts a look that began nothing while nothing was going on, and begins a round of work otherwise.
func (w *Worker) measure(p *pod, d *plan.Decision, why queue.Reasons, asked, began time.Time) {
	kind := podtiming.Sync
	switch {
	case d.View.Ending:
		kind = podtiming.Kill
	case why.Has(queue.PodChanged):
		kind = podtiming.Update
	}

	p.mu.Lock()
	round, over := p.rounds.Look(podtiming.Look{
		Kind:  kind,
		Asked: asked,
		Began: began,
		Ended: time.Now(),
		Steps: len(p.cancels),
	})

	p.mu.Unlock()
	if over {
		w.deps.Meter.Worked(round)
	}
}

// done gives the plan what came of a step and has the pod looked at again.
func (w *Worker) done(p *pod, s plan.Step, err error) {
	p.mu.Lock()
	delete(p.cancels, s.Key())
	failed := p.plan.End(s, err, time.Now())
	pod := p.plan.Spec()
	round, over := p.rounds.Ended(time.Now(), len(p.cancels))
	p.mu.Unlock()
	if over {
		w.deps.Meter.Worked(round)
	}

	w.deps.Log.Debug("step ended", "pod", fullName(pod), "step", s.Key(), "err", err)
	if failed {
		w.reportFailure(pod, s, err)
	}

	// The watch will report that the object has gone.
	if err == nil && s.Verb == plan.Finalize {
		p.trace.Gone()
		return
	}

	if err == nil && s.Verb == plan.Forget {
		w.deps.Probes.Sync(pod, "", nil)
		p.trace.Gone()
		w.forget(p.uid)
	}

	w.deps.Queue.Look(p.uid, queue.StepEnded)
}

// fullName is a pod's name in logs, empty for a pod that is not desired.
func fullName(pod *v1.Pod) string {
	if pod == nil {
		return ""
	}
	return pod.Namespace + "/" + pod.Name
}

func firstIP(ips []string) string {
	if len(ips) == 0 {
		return ""
	}
	return ips[0]
}

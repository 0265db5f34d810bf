package podworker

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/probe"
)

// look is one round for one pod: observe, decide, begin the steps, report.
func (w *Worker) look(ctx context.Context, uid types.UID) error {
	// first: what ends from here on may not show in what is observed
	inFlight := w.inFlight(uid)
	desired := w.pods.Get(uid)
	if desired != nil && podsource.Mirror(desired) {
		w.mirror(ctx, desired)
		return nil
	}

	observed, err := w.runtime.Observe(ctx, string(uid))
	if err != nil {
		return err
	}

	if desired == nil {
		if !w.settled(uid, observed) {
			// it may only be unknown yet; the list enqueues again
			return nil
		}

		// the list has come since
		if w.pods.Get(uid) != nil {
			w.Enqueue(uid)
			return nil
		}
	} else {
		if may, err := w.mayBegin(ctx, desired, observed); !may {
			w.queue.AddAfter(uid, anotherTry)
			return err
		}
	}

	p := w.pod(ctx, uid)
	if desired != nil && !w.decided(ctx, p, desired, observed) {
		w.queue.AddAfter(uid, admitRetry)
		return nil
	}

	in, ok := w.input(p, desired, observed, inFlight)
	if !ok {
		w.forget(uid)
		return nil
	}

	// First, as what has no startup probe counts as started from here on, and nothing will come to say so.
	w.probes.Sync(in.Pod, firstIP(w.podIPs(in.Pod, in.Observed)), w.instances(p, in))
	in.Memory.Health = w.probes.Health(uid)
	d := plan.Decide(in)
	if d.Deadline {
		w.end(p, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
		return w.look(ctx, uid)
	}

	if d.Ending {
		p.giveUp()
		w.probes.StopLiveness(uid)
	}

	w.beginAll(ctx, p, in, d)
	if !in.Memory.Gone {
		if err := w.report(ctx, p, in, d); err != nil {
			return err
		}
	}

	w.again(p, d.Requeue)
	return nil
}

// again has the pod looked at when its plan wants it, or its volumes. Each look must say so anew: of several
// times for one pod, the queue keeps the earliest only.
func (w *Worker) again(p *pod, at time.Time) {
	p.mu.Lock()
	refresh := p.refresh
	p.mu.Unlock()
	if at.IsZero() || !refresh.IsZero() && refresh.Before(at) {
		at = refresh
	}
	if !at.IsZero() {
		w.queue.AddAfter(p.uid, max(time.Until(at), time.Millisecond))
	}
}

// end makes the pod end for a reason of the agent's own.
func (w *Worker) end(p *pod, reason, message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.memory.Ended == nil {
		w.events.Pod(p.spec, "", v1.EventTypeNormal, reason, message)
		p.memory.Ended = &plan.Ending{Reason: reason, Message: message, At: time.Now()}
	}
}

// input puts together what the decision depends on. It is not ok when there is nothing to decide: no such
// pod, nowhere. Steps that were in flight when the look began count as such, even if they have ended since:
// the observation may not show what they did.
func (w *Worker) input(
	p *pod,
	desired *v1.Pod,
	observed plan.Observed,
	inFlight map[string]bool,
) (in plan.Input, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()

	if desired != nil {
		if p.spec == nil || p.spec.Generation != desired.Generation {
			w.objects.Register(desired)
			p.changed(desired)
		}

		if p.spec != nil &&
			(!maps.Equal(p.spec.Labels, desired.Labels) ||
				!maps.Equal(p.spec.Annotations, desired.Annotations)) {
			// downward API volumes show them
			p.stale()
		}

		if p.wasHealth == nil {
			p.wasHealth = healthShown(desired)
		}

		p.spec = desired
		w.yield(p)
		p.shorten()
	} else {
		if p.spec == nil && len(observed.Sandboxes) == 0 {
			return plan.Input{}, false
		}
		if p.spec == nil {
			p.spec = orphan(p.uid, observed)
		}

		p.memory.Gone = true
	}

	if !p.refresh.IsZero() && !time.Now().Before(p.refresh) {
		p.stale()
		p.refresh = time.Time{}
	}

	masked := mask(observed, inFlight)
	in = plan.Input{
		Pod:        p.spec,
		Observed:   masked,
		Memory:     p.snapshot(),
		Now:        time.Now(),
		MaxBackoff: w.MaxBackoff,
		Logged:     w.logged(p.spec, observed),
	}

	in.Memory.InFlight = inFlight
	in.Memory.Mounted = p.volumes.Cover(p.spec)
	in.Memory.Reported = plan.Terminal(p.spec.Status.Phase)
	return in, true
}

// changed forgets what was learned of an older spec: what failed may succeed by the new one, an image that
// was not to blame for a crash need not wait for it, and a new container may use volumes that none has used
// so far. The caller holds the lock.
func (p *pod) changed(desired *v1.Pod) {
	if p.spec == nil {
		return
	}
	clear(p.memory.Failures)
	for name := range p.memory.Backoffs {
		if before, now := findSpec(p.spec, name), findSpec(desired, name); before == nil || now == nil ||
			plan.Hash(before) != plan.Hash(now) {
			delete(p.memory.Backoffs, name)
		}
	}
	p.stale()
}

// mask hides what only steps in flight have brought about: that a container runs while its start, postStart
// hook included, is not over, and that one which never started has ended because it is being removed.
func mask(o plan.Observed, inFlight map[string]bool) plan.Observed {
	o.Containers = slices.Clone(o.Containers)
	for i := range o.Containers {
		c := &o.Containers[i]
		starting := c.State == plan.Running && inFlight[plan.Step{Verb: plan.Start, Name: c.Name}.Key()] &&
			newest(o.Containers, c)
		removing := c.State == plan.Exited && c.Started.IsZero() &&
			inFlight[plan.Step{Verb: plan.RemoveContainer, ID: c.ID}.Key()]
		if starting || removing {
			c.State = plan.Created
		}
	}

	return o
}

// newest reports whether c is the last instance of its container.
func newest(all []plan.Container, c *plan.Container) bool {
	return !slices.ContainsFunc(all, func(x plan.Container) bool {
		return x.Name == c.Name && x.ID != c.ID &&
			(x.Attempt > c.Attempt || x.Attempt == c.Attempt && x.Created.After(c.Created))
	})
}

// healthShown is what the API shows of containers when the agent sees the pod first: a restarted agent starts
// from there.
func healthShown(pod *v1.Pod) map[string]v1.ContainerStatus {
	out := map[string]v1.ContainerStatus{}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if s.ContainerID != "" && s.State.Running != nil {
			out[s.ContainerID] = s
		}
	}
	return out
}

// admitRetry is when a critical pod that waits for others to end is asked about again.
const admitRetry = 250 * time.Millisecond

// decided lets a pod in or refuses it, once. It is false while that is open. A pod that has begun on this
// node is never asked about: its resources are its own.
func (w *Worker) decided(ctx context.Context, p *pod, desired *v1.Pod, observed plan.Observed) bool {
	p.mu.Lock()
	done := p.admitted || p.memory.Ended != nil
	p.mu.Unlock()
	if done {
		return true
	}

	var verdict admit.Verdict
	switch {
	case desired.Status.StartTime != nil || len(observed.Sandboxes) > 0:
		w.gate.Begun(desired.UID)
	case desired.DeletionTimestamp == nil:
		// one that goes unbegun needs no room
		verdict = w.gate.Ask(desired, w.pods.List())
		if verdict.Reason == admit.NodeAffinity && w.Refresh != nil {
			w.Refresh(ctx)
			verdict = w.gate.Ask(desired, w.pods.List())
		}
	}

	if len(verdict.Preempt) > 0 {
		return false
	}

	p.mu.Lock()
	defer p.mu.Unlock()

	p.admitted = true
	if verdict.Reason != "" {
		message := "Pod was rejected: " + verdict.Message
		p.memory.Ended = &plan.Ending{Reason: verdict.Reason, Message: message, At: time.Now()}
		w.events.Pod(desired, "", v1.EventTypeWarning, verdict.Reason, verdict.Message)
	}

	return true
}

// yield ends a pod that is in the way of a critical one. The caller holds the pod's lock.
func (w *Worker) yield(p *pod) {
	if p.memory.Ended != nil || !w.gate.Victim(p.uid) {
		return
	}
	const reason, message = "Preempting", "Preempted in order to admit critical pod"
	w.events.Pod(p.spec, "", v1.EventTypeWarning, reason, message)
	p.memory.Ended = &plan.Ending{
		Reason:     reason,
		Message:    message,
		Disruption: "Pod was preempted by Kubelet to accommodate a critical pod.",
		At:         time.Now(),
	}
}

// shorten makes Stop steps begin again when the API has shortened the pod's grace, e.g. by a forced deletion.
func (p *pod) shorten() {
	now := p.spec.DeletionGracePeriodSeconds
	if p.spec.DeletionTimestamp == nil || now == nil {
		return
	}
	if p.grace == nil || *now < *p.grace {
		// they come again, with the new grace
		p.hurry()
		p.stopping, p.hurry = context.WithCancel(p.root)
	}
	p.grace = now
}

// orphan is a pod that only the runtime knows, as far as that tells.
func orphan(uid types.UID, o plan.Observed) *v1.Pod {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid, Name: "unknown", Namespace: "unknown"}}
	for _, s := range o.Sandboxes {
		pod.Annotations = s.Annotations
	}

	seen := map[string]bool{}
	for _, c := range o.Containers {
		if !seen[c.Name] {
			seen[c.Name] = true
			pod.Spec.Containers = append(pod.Spec.Containers, annotated(c))
		}

		pod.Spec.TerminationGracePeriodSeconds = new(c.Grace)
	}

	return pod
}

// annotated is the spec of a container as far as its annotations tell: enough to stop it. What cannot be read
// is not there.
func annotated(c plan.Container) v1.Container {
	out := v1.Container{Name: c.Name}
	hook := &v1.LifecycleHandler{}
	if json.Unmarshal([]byte(c.PreStop), hook) == nil {
		out.Lifecycle = &v1.Lifecycle{PreStop: hook}
	}
	_ = json.Unmarshal([]byte(c.Ports), &out.Ports)
	return out
}

// instances are the running containers to be probed.
func (w *Worker) instances(p *pod, in plan.Input) []probe.Instance {
	if in.Memory.Gone {
		return nil
	}

	var out []probe.Instance
	for _, c := range in.Observed.Containers {
		spec := findSpec(in.Pod, c.Name)
		if c.State != plan.Running || spec == nil {
			continue
		}

		shown, known := p.wasHealth[w.RuntimeName+"://"+c.ID]
		out = append(out, probe.Instance{
			ID:         c.ID,
			Spec:       spec,
			Started:    c.Started,
			WasStarted: known && shown.Started != nil && *shown.Started,
			WasReady:   known && shown.Ready,
		})
	}

	return out
}

// findSpec is the spec of a container of any kind.
func findSpec(pod *v1.Pod, name string) *v1.Container {
	for _, all := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range all {
			if all[i].Name == name {
				return &all[i]
			}
		}
	}

	for i := range pod.Spec.EphemeralContainers {
		if e := &pod.Spec.EphemeralContainers[i]; e.Name == name {
			c := v1.Container(e.EphemeralContainerCommon)
			return &c
		}
	}

	return nil
}

func (w *Worker) podIPs(pod *v1.Pod, o plan.Observed) []string {
	if pod.Spec.HostNetwork {
		return w.HostIPs
	}
	for _, s := range o.Sandboxes {
		if s.Ready {
			return s.IPs
		}
	}
	return nil
}

func firstIP(ips []string) string {
	if len(ips) == 0 {
		return ""
	}
	return ips[0]
}

package plan

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/plan/backoff"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/reason"
)

// Pod is one pod as the agent knows it. A look at it is Look, Want or Gone, See and Decide, in this order;
// Begin and End may come at any time. It has no lock: calls must not overlap.
//
// What is neither in the API nor in the runtime is lost with the agent. It is found again, at worst after a
// retry.
type Pod struct {
	uid types.UID

	// limit is the longest back-off of restarts.
	limit time.Duration

	// old is how many instances that have ended are kept of each container, beside the newest.
	old int

	// spec is the newest version of the pod. It is kept when the API has none any more; nil: none was seen.
	spec *v1.Pod

	// gone means that the API has no such pod any more.
	gone bool

	// ended is the first decision of the agent that the pod must end, nil if there was none.
	ended *Ending

	// view is what the look that is on its way sees.
	view View

	// steps is what is being done, and what failed.
	steps steps

	// restarts, images and hashes are by the name of the container: the back-off of its restarts, the image
	// that is on the node for its next start, and the hash of its spec.
	restarts map[string]backoff.Restarts
	images   map[string]string
	hashes   map[string]hashOf

	removed removed

	// stopped are the IDs of the sandboxes whose stop was carried through.
	stopped map[string]bool

	volumes volumes

	// sizes is what is known of the resources in force, and pending the resize that the pod waits for; nil:
	// for none.
	sizes   sizes
	pending *Pending

	// tornDown means that the volumes are unmounted and the control group is removed.
	tornDown bool
}

// steps is the state of the steps of a pod.
type steps struct {
	inFlight map[Key]*flight

	// landed are the steps that ended since the look began.
	landed map[Key]bool

	// failures are the steps that failed and were not repeated with success since.
	failures map[Key]backoff.Failure
}

// busy reports whether a step counts as in flight for the look that is on its way.
func (s *steps) busy(k Key) bool { return s.inFlight[k] != nil || s.landed[k] }

// flight is a step that is being done.
type flight struct {
	// patience is how long the container has at most to end, of a Stop.
	patience time.Duration

	// grant is the newest one of the pod when the step began.
	grant *Grant

	cancelled bool
}

// volumes is whether what volumes show is up to date.
type volumes struct {
	fresh bool

	// changed means that something they show has changed since the last Prepare began.
	changed bool

	// renew is when they will be out of date by themselves; zero: never.
	renew time.Time
}

// New returns a pod of which nothing is known. limit is the longest back-off of its containers' restarts;
// 0 is backoff.LongestRestart.
func New(uid types.UID, limit time.Duration) *Pod {
	return &Pod{
		uid:   uid,
		old:   1,
		limit: cmp.Or(limit, backoff.LongestRestart),
		steps: steps{
			inFlight: map[Key]*flight{},
			landed:   map[Key]bool{},
			failures: map[Key]backoff.Failure{},
		},
		restarts: map[string]backoff.Restarts{},
		images:   map[string]string{},
		hashes:   map[string]hashOf{},
		stopped:  map[string]bool{},
		removed:  removed{},
	}
}

// KeepOld sets how many instances that have ended are kept of each container, beside the newest: at least
// one, which is the last state of the container.
func (p *Pod) KeepOld(n int) { p.old = max(n, 1) }

// Spec returns the newest version of the pod, or nil when none was seen. The caller must not change it.
func (p *Pod) Spec() *v1.Pod { return p.spec }

// Look begins a look. A step that ends from here on counts as in flight until the next one: what is observed
// may not show what it did.
func (p *Pod) Look() { clear(p.steps.landed) }

// Want takes the newest version of the pod and reports whether its spec differs from the one before. With a
// new spec, what was learned of the older one is forgotten: a step that failed may succeed now, a container
// whose image was changed need not wait for the crashes of the old image, and volumes may show something
// else.
func (p *Pod) Want(pod *v1.Pod) (changed bool) {
	old := p.spec
	p.spec = pod
	if old == nil {
		return true
	}

	if old.Generation == pod.Generation {
		// Volumes of the downward API show labels and annotations.
		if !maps.Equal(old.Labels, pod.Labels) || !maps.Equal(old.Annotations, pod.Annotations) {
			p.outdate()
		}

		return false
	}

	clear(p.steps.failures)
	for name := range p.restarts {
		before, now := podspec.Find(old, name), podspec.Find(pod, name)
		if before == nil || now == nil || Hash(before) != Hash(now) {
			delete(p.restarts, name)
		}
	}

	p.outdate()
	return true
}

// Gone says that the API has no such pod any more. That stands until the pod is forgotten, even if the API
// has it again: of a static pod, whose manifest has come back, what runs ends first.
func (p *Pod) Gone() { p.gone = true }

// ObjectChanged says that something the pod refers to has appeared, changed or gone: what failed is tried at
// once, and volumes are brought up to date.
func (p *Pod) ObjectChanged() {
	clear(p.steps.failures)
	p.outdate()
}

// RenewAt sets when the volumes must be brought up to date again, as a token expires or a claim may have
// grown.
func (p *Pod) RenewAt(at time.Time) { p.volumes.renew = at }

// outdate says that volumes show something old. If they are being prepared right now, that is done once more.
func (p *Pod) outdate() {
	p.volumes.fresh = false
	p.volumes.changed = true
}

// Terminate makes the pod end for a reason of the agent's own. The first reason stands; it reports whether
// this is it.
func (p *Pod) Terminate(e Ending) (first bool) {
	if p.ended != nil {
		return false
	}
	p.ended = &e
	return true
}

// Terminated reports whether the agent has made the pod end.
func (p *Pod) Terminated() bool { return p.ended != nil }

// TornDown reports whether the pod's volumes are unmounted and its control group is removed.
func (p *Pod) TornDown() bool { return p.tornDown }

// See takes what the node has of the pod and returns the pod as this look sees it, without what only Decide
// knows. What steps in flight have brought about is hidden until they have ended.
func (p *Pod) See(o Observed) View {
	if p.spec == nil {
		p.spec = orphan(p.uid, o)
	}
	p.view = viewOf(p.spec, p.mask(o), p.removed)
	p.view.Gone = p.gone
	p.sizes.see(p.view.Observed.Containers)
	return p.view
}

// mask hides that a container runs while its start, postStart hook included, is not over, and that one which
// never started has ended because it is being removed.
func (p *Pod) mask(o Observed) Observed {
	if len(p.steps.inFlight)+len(p.steps.landed) == 0 {
		return o
	}

	o.Containers = slices.Clone(o.Containers)
	for i := range o.Containers {
		c := &o.Containers[i]
		succeeds := func(x Container) bool { return x.Name == c.Name && newer(&x, c) }

		starting := c.State == Running && p.steps.busy(Key{Start, c.Name}) &&
			!slices.ContainsFunc(o.Containers, succeeds)
		removing := c.State == Exited && c.Started.IsZero() && p.steps.busy(Key{RemoveContainer, c.ID})
		if starting || removing {
			c.State = Created
		}
	}

	return o
}

// Begin says that a step of the last decision is being done from here on.
func (p *Pod) Begin(s Step) {
	f := &flight{grant: p.sizes.grant}
	switch s.Verb {
	case Prepare:
		p.volumes.changed = false
	case RemoveContainer:
		if s.KeepLog {
			p.removed.keep(&p.view, s)
		}

	case Stop:
		f.patience = s.Grace
		if grace, _ := p.grace(); grace != nil {
			f.patience = *grace
		}
	}

	p.steps.inFlight[s.Key()] = f
}

// End says that a step has ended. It reports whether that is a failure that users should see: a step that was
// cancelled or whose spec has changed meanwhile is none, nor is a resize that fails once more.
func (p *Pod) End(s Step, err error, now time.Time) (failed bool) {
	key := s.Key()
	if err == nil && s.Verb == Finalize {
		// It stays in flight: the finalizers of others may keep the object for long, and deleting it once
		// more would not help.
		return false
	}

	delete(p.steps.inFlight, key)
	p.steps.landed[key] = true

	// A pull of an image that the spec does not have any more says nothing of the one that it has now.
	cancelled := errors.Is(err, context.Canceled) || err != nil && s.Verb == Pull && !wants(p.spec, s)
	switch {
	case err == nil:
		delete(p.steps.failures, key)
		p.succeeded(s)
	case !cancelled:
		delays := backoff.OfSteps
		if s.Verb == Pull {
			delays = backoff.OfPulls
		}

		p.steps.failures[key] = p.steps.failures[key].Next(delays, reason.Of(err), err.Error(), now)
	}

	if s.Verb == Start {
		// The next start makes sure of the image again.
		delete(p.images, s.Name)
	}

	if s.Restart && (err == nil || s.Verb == Start && !cancelled) {
		p.restarts[s.Name] = p.restarts[s.Name].Next(now, p.limit)
	}

	// A resize that is refused is tried again for as long as it is asked for.
	told := s.Verb == Resize && p.steps.failures[key].Count > 1
	return err != nil && !cancelled && !told
}

// succeeded keeps what a step has made.
func (p *Pod) succeeded(s Step) {
	switch s.Verb {
	case Prepare:
		p.volumes.fresh = !p.volumes.changed
	case Pull:
		p.images[s.Name] = s.Image
	case Resize:
		p.sizes.succeeded(s)
	case StopSandbox:
		p.stopped[s.ID] = true
	case Teardown:
		p.tornDown = true
		p.volumes.fresh = false
	}
}

// wants reports whether the container of a Pull still has that image in the spec.
func wants(pod *v1.Pod, s Step) bool {
	c := podspec.Find(pod, s.Name)
	return c != nil && c.Image == s.Image
}

// grace is what the containers of a pod that must end have, and when it is over: by its deletion or by the
// agent's decision, whichever leaves less. It is nil if neither says so.
func (p *Pod) grace() (grace *time.Duration, over time.Time) {
	if p.spec.DeletionTimestamp != nil && p.spec.DeletionGracePeriodSeconds != nil {
		// The API server's deletionTimestamp is when the grace ends.
		grace, over = new(seconds(*p.spec.DeletionGracePeriodSeconds)), p.spec.DeletionTimestamp.Time
	}
	if e := p.ended; e != nil && e.Grace != nil && (grace == nil || *e.Grace < *grace) {
		grace, over = e.Grace, e.At.Add(*e.Grace)
	}
	return grace, over
}

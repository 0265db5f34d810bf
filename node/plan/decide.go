package plan

import (
	"cmp"
	"slices"
	"time"

	"github.com/trivet-node/trivet/node/podspec"
)

// planner makes one decision. It reads and changes the pod, and sees what the view shows.
type planner struct {
	View
	pod *Pod
	out Decision
}

// Decide returns what to do now, by what See has seen and the probes found since. The caller gives each of
// the steps to Begin, and to End when it has ended.
func (p *Pod) Decide(health map[string]Health, now time.Time) Decision {
	d := &planner{View: p.view, pod: p}
	d.keep(p, health, now)

	d.Ending = d.ending()
	if d.Ending {
		shutdown{d}.plan()
	} else {
		d.live()
	}

	d.resizing()
	d.cancel()
	sortSteps(d.Pod, d.out.Steps)
	d.out.View = d.View
	return d.out
}

// ending reports whether the pod must go: the API said so, the agent said so, it ended by itself, or its time
// is up.
func (d *planner) ending() bool {
	if d.pod.gone || d.Pod.DeletionTimestamp != nil || d.Ended != nil || Terminal(d.Pod.Status.Phase) {
		return true
	}
	if at := deadline(d.Pod); !at.IsZero() {
		if !d.Now.Before(at) {
			d.exceeded()
			return true
		}
		d.wake(at)
	}
	return d.finished()
}

// exceeded ends the pod because its time is up.
func (d *planner) exceeded() {
	d.Ended = &Ending{
		Reason:  deadlineExceeded,
		Message: "Pod was active on the node longer than the specified deadline",
		At:      d.Now,
	}
	d.pod.ended, d.out.Ended = d.Ended, d.Ended
}

// do adds a step, unless it is being done or must wait after a failure. It reports whether it did.
func (d *planner) do(s Step) bool {
	key := s.Key()
	if d.pod.steps.busy(key) {
		return false
	}

	if f, failed := d.failures[key]; failed && f.Retry.After(d.Now) {
		d.wake(f.Retry)
		if shown := f.At.Add(PullErrorShown); s.Verb == Pull && shown.After(d.Now) {
			d.wake(shown)
		}

		return false
	}

	d.out.Steps = append(d.out.Steps, s)
	return true
}

// PullErrorShown is how long the status shows the error of a failed pull before it shows the back-off.
const PullErrorShown = 2 * time.Second

// wake asks for the next decision at that time, unless one is due earlier.
func (d *planner) wake(at time.Time) {
	if d.out.Requeue.IsZero() || at.Before(d.out.Requeue) {
		d.out.Requeue = at
	}
}

// cancel lists the steps in flight that are not wanted any more: what brings up a pod that must end, and
// stops that take longer than the pod now may, e.g. since somebody has forced its deletion or it is evicted.
func (d *planner) cancel() {
	grace, _ := d.pod.grace()
	for key, f := range d.pod.steps.inFlight {
		unwanted := d.Ending && key.Verb.makes()
		late := key.Verb == Stop && grace != nil && *grace < f.patience
		if (unwanted || late) && !f.cancelled {
			f.cancelled = true
			d.out.Cancel = append(d.out.Cancel, key)
		}
	}

	slices.SortFunc(d.out.Cancel, func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.Verb, b.Verb), cmp.Compare(a.Object, b.Object))
	})
}

// starting reports whether a step that makes something is in flight: what it makes must be seen before the
// pod can be taken down.
func (p *Pod) starting() bool {
	return p.steps.busy(Key{Verb: CreateSandbox}) || p.steps.busy(Key{Verb: Prepare}) || p.startingContainer()
}

// startingContainer reports whether a container's start is in flight.
func (p *Pod) startingContainer() bool {
	for c := range podspec.All(p.spec) {
		if p.steps.busy(Key{Start, c.Name}) {
			return true
		}
	}
	return false
}

package plan

import (
	"cmp"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

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
	if p.sizes.since.IsZero() {
		p.sizes.since = now
	}

	d := &planner{View: p.view, pod: p}
	d.keep(p, health, now)

	d.Ending = d.ending()
	if d.Ending {
		shutdown{d}.plan()
	} else {
		d.live()
	}

	resizer{d}.progress()
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

// LeastGrace is what every container gets to end by itself, however little is left of the grace: a sidecar
// after the other containers, a container after its preStop hook, or a pod that is deleted with a grace of 0.
const LeastGrace = 2 * time.Second

// shutdown plans the end of a pod.
type shutdown struct{ *planner }

// plan takes the pod down: containers (sidecars last, in reverse order), sandboxes, then volumes and control
// group, and then the object, beside the removal of the sandboxes, which hold nothing any more.
func (d shutdown) plan() {
	if d.stopContainers() > 0 || d.pod.starting() || d.stopSandboxes() > 0 {
		return
	}

	// The last status comes from what is taken down now: exit codes, termination messages.
	if !Terminal(d.Pod.Status.Phase) && !d.pod.gone {
		return
	}
	if !d.pod.tornDown {
		d.do(Step{Verb: Teardown})
		return
	}

	// A pod that ended by itself keeps its containers, for their logs, until somebody deletes it.
	if d.Pod.DeletionTimestamp == nil && !d.pod.gone {
		return
	}

	// The object need not wait for what is removed, nor did the volumes: an OCI runtime takes its time.
	d.removeAll()

	if !d.pod.gone {
		d.do(Step{Verb: Finalize})
		return
	}

	if len(d.Observed.Sandboxes)+len(d.Observed.Containers) == 0 {
		d.do(Step{Verb: Forget})
	}
}

// stopContainers stops what runs and returns how many instances still do. Sidecars follow when everything
// else has ended, one by one, the last of the spec first.
func (d shutdown) stopContainers() (running int) {
	last, ordinary := -1, 0
	for i := range d.Observed.Containers {
		c := &d.Observed.Containers[i]
		if c.State != Running {
			continue
		}

		running++
		if place := sidecarPlace(d.Pod, c.Name); place >= 0 {
			last = max(last, place)
			continue
		}

		ordinary++
		d.stop(c)
	}

	if ordinary > 0 || last < 0 {
		return running
	}

	for i := range d.Observed.Containers {
		c := &d.Observed.Containers[i]
		if c.State == Running && sidecarPlace(d.Pod, c.Name) == last {
			d.stop(c)
		}
	}

	return running
}

// stop stops a container within what is left of the pod's grace.
func (d shutdown) stop(c *Container) {
	why := killing
	if d.Ended != nil && d.Ended.Reason == deadlineExceeded {
		why = deadlineExceeded
	}

	d.do(Step{
		Verb:  Stop,
		Name:  c.Name,
		ID:    c.ID,
		Grace: d.endGrace(c),
		Why:   why,
	})
}

// sidecarPlace is the index of a sidecar among the init containers, -1 for any other container.
func sidecarPlace(pod *v1.Pod, name string) int {
	return slices.IndexFunc(pod.Spec.InitContainers, func(c v1.Container) bool {
		return c.Name == name && podspec.Sidecar(&c)
	})
}

// Grace returns the pod's own termination grace period.
func Grace(pod *v1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return seconds(*s)
	}
	return seconds(v1.DefaultTerminationGracePeriodSeconds)
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

// endGrace is what is left of the pod's grace: it is one budget for all its containers, sidecars included.
func (d shutdown) endGrace(c *Container) time.Duration {
	grace, over := d.pod.grace()
	if grace == nil {
		if d.pod.gone && c.Grace > 0 {
			return seconds(c.Grace)
		}

		return Grace(d.Pod)
	}

	// A sidecar, whose turn comes late, has only the rest.
	if left := over.Sub(d.Now); sidecarPlace(d.Pod, c.Name) >= 0 && left < *grace {
		return max(left, LeastGrace)
	}

	return *grace
}

// stopSandboxes stops the sandboxes and returns how many are not stopped for good yet.
func (d shutdown) stopSandboxes() (left int) {
	for _, s := range d.Observed.Sandboxes {
		if !d.stopSandbox(s) {
			left++
		}
	}
	return left
}

// stopSandbox reports whether a sandbox is stopped for good, its network released, and stops it otherwise. It
// is stopped once in the agent's life even if the runtime calls it not ready: the stop may have been
// interrupted half-way.
func (d *planner) stopSandbox(s Sandbox) bool {
	step := Step{Verb: StopSandbox, ID: s.ID}
	if !s.Ready && d.pod.stopped[s.ID] && !d.pod.steps.busy(step.Key()) {
		return true
	}
	d.do(step)
	return false
}

// removeAll removes the sandboxes with their containers, and containers whose sandbox the runtime has lost.
func (d shutdown) removeAll() {
	for _, s := range d.Observed.Sandboxes {
		d.do(Step{Verb: RemoveSandbox, ID: s.ID})
	}
	if len(d.Observed.Sandboxes) > 0 {
		return
	}
	for _, c := range d.Observed.Containers {
		d.do(Step{Verb: RemoveContainer, Name: c.Name, ID: c.ID})
	}
}

// deadline is when the pod's activeDeadlineSeconds are over, the zero time if there are none.
func deadline(pod *v1.Pod) time.Time {
	limit := pod.Spec.ActiveDeadlineSeconds
	if limit == nil || pod.Status.StartTime == nil {
		return time.Time{}
	}
	return pod.Status.StartTime.Add(seconds(*limit))
}

// Package allocation knows what resources each pod of the node has been given, which may be others than its
// specification asks for: a resize is given when there is room for it (KEP-1287).
//
// A pod that was never resized has what it was admitted with, and no record. What a resize gives is on disk,
// in the pod's directory, before it acts or shows. Where no record is left, what the API shows counts.
package allocation

import (
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/plan"
)

// Ledger is what the pods of the node have been given. All methods may be called at the same time.
type Ledger struct {
	rootDir string
	log     *slog.Logger

	// mu guards pods.
	mu   sync.Mutex
	pods map[types.UID]*entry
}

// holding is what a pod has.
type holding struct {
	// pod is a version of it that has this in its specification.
	pod *v1.Pod

	// grant is the newest one; nil: the pod was never resized.
	grant *plan.Grant
}

// entry is one pod.
type entry struct {
	// given is what the pod has been given, and counts for others. kept is the same as soon as that is on
	// disk: only then may it act.
	given holding
	kept  holding

	// asked is the newest version; nil: it asks for what is given.
	asked *v1.Pod

	// since is when it began to wait, for the order of requests.
	since time.Time

	// pending is the newest decision not to give what is asked for, which was made at decided; nil: it is not
	// decided about yet.
	pending *plan.Pending
	decided time.Time
}

// New returns a ledger of the pods below rootDir, kubelet's root directory.
func New(rootDir string, log *slog.Logger) *Ledger {
	return &Ledger{rootDir: rootDir, log: log, pods: map[types.UID]*entry{}}
}

// Admit says that a pod is given what this version of it asks for.
func (l *Ledger) Admit(pod *v1.Pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pods[pod.UID] = newEntry(pod, nil)
}

// Forget drops a pod that has gone.
func (l *Ledger) Forget(uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pods, uid)
}

// Of returns the pod as it is allocated: with the resources that it has been given in its specification. That
// is the pod itself, unless it asks for others.
func (l *Ledger) Of(pod *v1.Pod) *v1.Pod {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open(pod).given.in(pod)
}

// All replaces each of the pods by what Of returns of it, in place.
func (l *Ledger) All(pods []*v1.Pod) []*v1.Pod {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, pod := range pods {
		pods[i] = l.open(pod).given.in(pod)
	}
	return pods
}

func newEntry(pod *v1.Pod, grant *plan.Grant) *entry {
	h := holding{pod: pod, grant: grant}
	return &entry{given: h, kept: h}
}

// fits reports whether the specification of the pod has this.
func (h holding) fits(pod *v1.Pod) bool {
	return h.pod == pod || h.pod.Generation == pod.Generation || same(h.pod, pod)
}

// in returns the pod with this in its specification.
func (h holding) in(pod *v1.Pod) *v1.Pod {
	if h.fits(pod) {
		return pod
	}
	return Of(h.pod).In(pod)
}

// open returns what is known of a pod. The first time that is what an earlier agent has left of it.
func (l *Ledger) open(pod *v1.Pod) *entry {
	if e := l.pods[pod.UID]; e != nil {
		return e
	}

	e := l.recall(pod)
	l.pods[pod.UID] = e
	return e
}

// noGeneration is that of a specification that the API has never had.
const noGeneration = -1

// recall returns what an earlier agent has left of a pod.
func (l *Ledger) recall(pod *v1.Pod) *entry {
	if pod.Status.StartTime == nil {
		return newEntry(pod, nil)
	}

	r, found := l.read(pod.UID)
	given := pod
	switch {
	case found && (waits(pod) || r.Generation >= pod.Status.ObservedGeneration):
		given = r.Resources.In(pod)
		given.Generation = r.Generation
	case waits(pod):
		given = shown(pod).In(pod)
		given.Generation = noGeneration
	}

	// Where the API shows a newer one as given, the newest record was lost.
	if !found {
		return newEntry(given, nil)
	}

	return newEntry(given, &plan.Grant{
		Generation: r.Generation,
		At:         r.At,
		Announced:  unfinished(pod, r.Generation),
	})
}

// unfinished reports whether the API shows that the resize of that generation goes on, or nothing of it yet.
func unfinished(pod *v1.Pod, generation int64) bool {
	return find(pod, v1.PodResizeInProgress) != nil || pod.Status.ObservedGeneration < generation
}

// waits reports whether the API shows that the pod may not have been given what it asks for: it waits for it,
// or nobody has seen that it does.
func waits(pod *v1.Pod) bool {
	return find(pod, v1.PodResizePending) != nil || pod.Status.ObservedGeneration < pod.Generation
}

func find(pod *v1.Pod, t v1.PodConditionType) *v1.PodCondition {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == t && c.Status == v1.ConditionTrue {
			return c
		}
	}
	return nil
}

// Seen is what a new version of a pod brings.
type Seen struct {
	// Before is the version before, if this one asks for other resources; nil otherwise.
	Before *v1.Pod

	// Due means that it is not decided yet about what the pod asks for, and Waits that it was deferred, at
	// Decided.
	Due     bool
	Waits   bool
	Decided time.Time

	// Dropped is a request that was pending and is there no longer, and Over means that its pod ends.
	Dropped *Request
	Over    bool

	// Freed means that the pod leaves room to others that wait: by its end, or because it has less now.
	Freed bool
}

// See takes the newest version of a pod that runs here.
func (l *Ledger) See(pod *v1.Pod, now time.Time) Seen {
	l.mu.Lock()
	defer l.mu.Unlock()

	_, known := l.pods[pod.UID]
	e := l.open(pod)
	seen := Seen{Over: over(pod)}
	if !seen.Over && !e.given.fits(pod) {
		before := e.ask(pod, now)
		seen.Due = e.pending == nil || e.pending.Generation != pod.Generation
		seen.Waits = !seen.Due && e.pending.Reason == v1.PodReasonDeferred
		seen.Decided = e.decided
		if known && before.Generation != pod.Generation {
			seen.Before = before
		}

		return seen
	}

	if e.asked != nil {
		seen.Dropped = e.request()
		e.asked, e.pending = nil, nil
	}

	seen.Freed = l.waiting() && frees(e.given.pod, pod)
	if e.given.fits(pod) {
		e.renew(pod)
	}

	return seen
}

// over reports whether a pod ends: it is not given anything any more.
func over(pod *v1.Pod) bool {
	return pod.DeletionTimestamp != nil || plan.Terminal(pod.Status.Phase)
}

// ask keeps the newest version of a pod that asks for other resources, and returns the one before.
func (e *entry) ask(pod *v1.Pod, now time.Time) (before *v1.Pod) {
	before = e.asked
	if before == nil {
		before = e.given.pod
		e.since = now
		if c := find(pod, v1.PodResizePending); c != nil {
			e.since = c.LastTransitionTime.Time
		}
	}

	e.asked = pod
	return before
}

// renew takes a version of the pod that has what has been given, so that an older one is not held for it.
func (e *entry) renew(pod *v1.Pod) {
	if e.kept == e.given {
		e.kept.pod = pod
	}
	e.given.pod = pod
}

// State is what a pod has as far as it may act and be shown.
type State struct {
	// Pod has it in its specification.
	Pod *v1.Pod

	// Grant is the newest one; nil: the pod was never resized.
	Grant *plan.Grant

	// Pending is why the pod does not have what it asks for; nil: it does, or that is not decided yet.
	Pending *plan.Pending
}

// Keep returns the state of a pod, after it has written what the pod has been given, if that is still to be
// done. If that fails the pod is as before, and Keep is to be called again.
func (l *Ledger) Keep(pod *v1.Pod) (State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()

	// Of one pod there is one look at a time, so that nobody else writes its record.
	e := l.open(pod)
	for e.kept.grant != e.given.grant && !over(pod) {
		given := e.given
		if err := l.writeUnlocked(pod.UID, given); err != nil {
			return State{
				Pod:   e.kept.in(pod),
				Grant: e.kept.grant,
				Pending: &plan.Pending{
					Reason:     v1.PodReasonDeferred,
					Message:    "the node cannot record the resize: " + err.Error(),
					Generation: pod.Generation,
				},
			}, err
		}

		// Another one may have been given meanwhile.
		e.kept = given
	}

	return State{Pod: e.kept.in(pod), Grant: e.kept.grant, Pending: e.pending}, nil
}

// writeUnlocked writes a record while the ledger is open to others.
func (l *Ledger) writeUnlocked(uid types.UID, given holding) error {
	l.mu.Unlock()
	defer l.mu.Lock()
	return l.write(record{
		UID:        uid,
		Generation: given.grant.Generation,
		At:         given.grant.At,
		Resources:  Of(given.pod),
	})
}

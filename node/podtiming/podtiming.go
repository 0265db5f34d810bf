// Package podtiming measures how long things take for one pod: its start (Clock), as the service level
// indicator of Kubernetes wants it
// (https://github.com/kubernetes/community/blob/master/sig-scalability/slos/pod_startup_latency.md), and
// rounds of work on it (Rounds). Time is an argument, and nothing is looked at.
package podtiming

import "time"

// Rounds measures rounds of work on a pod, each from a look to the end of all steps that it and the looks
// after it began. It must not be used by two goroutines at a time.
type Rounds struct {
	kind   string
	began  time.Time
	waited time.Duration
	worked bool
}

// Look is one look at the pod.
type Look struct {
	// Kind is that of the work: kill, update or sync.
	Kind string

	// Asked is when the look was asked for, Began when it began, and Ended when its steps had begun.
	Asked, Began, Ended time.Time

	// Steps is how many steps are on their way then.
	Steps int
}

// Look says that there was a look. The first round that has steps is create. It returns the round if that is
// over with the look.
func (r *Rounds) Look(l Look) (Round, bool) {
	if !r.began.IsZero() {
		return Round{}, false
	}
	if l.Steps == 0 {
		return Round{Kind: l.Kind, Took: l.Ended.Sub(l.Began)}, true
	}

	r.kind = l.Kind
	r.began = l.Began
	r.waited = l.Began.Sub(l.Asked)
	if !r.worked && l.Kind != Kill {
		r.kind = Create
	}
	r.worked = true
	return Round{}, false
}

// Ended says that a step has ended and how many are left. It returns the round if that was the last.
func (r *Rounds) Ended(now time.Time, left int) (Round, bool) {
	if left > 0 || r.began.IsZero() {
		return Round{}, false
	}
	out := Round{
		Kind:   r.kind,
		Took:   now.Sub(r.began),
		Waited: r.waited,
	}
	r.began = time.Time{}
	return out, true
}

// Round is work that is over.
type Round struct {
	Kind string
	Took time.Duration

	// Waited is how long the round was asked for before it began.
	Waited time.Duration
}

// The kinds of work, by kubelet's names.
const (
	Create = "create"
	Update = "update"
	Sync   = "sync"
	Kill   = "kill"
)

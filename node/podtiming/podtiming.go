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
	worked bool
}

// Look says that a look has begun steps, or none. The kind is that of the work: kill, update, sync; the first
// round that has steps is create. It returns the round if that is over with the look.
func (r *Rounds) Look(kind string, began, now time.Time, steps int) (Round, bool) {
	switch {
	case steps > 0 && r.began.IsZero():
		r.kind, r.began = kind, began
		if !r.worked && kind != Kill {
			r.kind = Create
		}
		r.worked = true
	case steps == 0 && r.began.IsZero():
		return Round{Kind: kind, Took: now.Sub(began)}, true
	}
	return Round{}, false
}

// Ended says that a step has ended and how many are left. It returns the round if that was the last.
func (r *Rounds) Ended(now time.Time, left int) (Round, bool) {
	if left > 0 || r.began.IsZero() {
		return Round{}, false
	}
	out := Round{Kind: r.kind, Took: now.Sub(r.began)}
	r.began = time.Time{}
	return out, true
}

// Round is work that is over.
type Round struct {
	Kind string
	Took time.Duration
}

// The kinds of work, by kubelet's names.
const (
	Create = "create"
	Update = "update"
	Sync   = "sync"
	Kill   = "kill"
)

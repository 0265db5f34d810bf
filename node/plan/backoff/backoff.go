// Package backoff computes how long the agent waits before it does something for a pod once more: the restart
// of a container that ended, and a step that failed. It is pure; times are given by the caller.
package backoff

import "time"

// The back-off of restarts, as kubelet has it: the first restart is immediate, then 10 s after the exit,
// doubling up to 5 min. Twice the longest delay without a crash forgets it.
const (
	firstRestart   = 10 * time.Second
	LongestRestart = 300 * time.Second
)

// Restarts is how often one container was restarted of late. The zero value is a container that was not.
type Restarts struct {
	Delay   time.Duration // between the exit and the next restart; 0: none
	Updated time.Time     // when it was restarted last
}

// Next returns the back-off after one more restart. limit is the longest delay.
func (r Restarts) Next(now time.Time, limit time.Duration) Restarts {
	if r.forgotten(now, limit) {
		return Restarts{Delay: min(firstRestart, limit), Updated: now}
	}
	return Restarts{Delay: min(2*r.Delay, limit), Updated: now}
}

// Until returns when a container that ended at finished may start again. The zero time means at once: if it
// has yet to end, the clock was set back since, and nobody knows for how long it has waited.
func (r Restarts) Until(finished, now time.Time, limit time.Duration) time.Time {
	if r.forgotten(now, limit) || finished.After(now) {
		return time.Time{}
	}
	if at := finished.Add(min(r.Delay, limit)); at.After(now) {
		return at
	}
	return time.Time{}
}

func (r Restarts) forgotten(now time.Time, limit time.Duration) bool {
	return r.Delay == 0 || now.Sub(r.Updated) > 2*limit
}

// Retries is the delays between attempts at a step: First after the first failure, doubling up to Longest.
type Retries struct {
	First, Longest time.Duration
}

// The delays of steps. Most causes of a failed step go away by themselves or are announced by an event, so
// that the first retries come soon; a registry is asked as seldom as kubelet does.
var (
	OfSteps = Retries{First: 500 * time.Millisecond, Longest: 30 * time.Second}
	OfPulls = Retries{First: 10 * time.Second, Longest: 300 * time.Second}
)

// Failure is a step that failed, once or several times in a row. The zero value is a step that did not.
type Failure struct {
	Reason  string // as users see it in the status; may be empty
	Message string
	At      time.Time // of the last failure
	Retry   time.Time // the step is not tried again before
	Count   int
}

// Next returns the failure after one more.
func (f Failure) Next(delays Retries, reason, message string, now time.Time) Failure {
	delay := min(delays.First<<min(f.Count, 10), delays.Longest)
	return Failure{
		Reason:  reason,
		Message: message,
		At:      now,
		Retry:   now.Add(delay),
		Count:   f.Count + 1,
	}
}

package plan

import "time"

// The back-off of restarts, as kubelet has it: the first restart is immediate, then 10 s doubling up to 5 min
// after the exit; ten minutes without a crash forget it.
const (
	FirstBackoff = 10 * time.Second
	MaxBackoff   = 300 * time.Second
)

// Next is the back-off after one more restart.
func (b Backoff) Next(now time.Time, limit time.Duration) Backoff {
	if b.Delay == 0 || now.Sub(b.Updated) > 2*limit {
		return Backoff{Delay: min(FirstBackoff, limit), Updated: now}
	}
	return Backoff{Delay: min(2*b.Delay, limit), Updated: now}
}

// Until is when a container that ended at finished may start again; zero: at once.
func (b Backoff) Until(finished, now time.Time, limit time.Duration) time.Time {
	if b.Delay == 0 || now.Sub(b.Updated) > 2*limit {
		return time.Time{}
	}
	if at := finished.Add(min(b.Delay, limit)); at.After(now) {
		return at
	}
	return time.Time{}
}

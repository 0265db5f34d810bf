package layer

import "time"

// budget is the time that calls may wait. What counts is the time that they did wait: layers that are counted
// at once leave the rest to the others of the same moment.
type budget struct {
	began time.Time
	spent time.Duration
}

// left returns how much is left of the moment that now is in.
func (b *budget) left(now time.Time) time.Duration {
	if now.Sub(b.began) > moment {
		*b = budget{began: now}
	}
	return max(patience-b.spent, 0)
}

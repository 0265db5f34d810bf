package seat

import (
	"context"
	"time"

	"github.com/trivet-node/trivet/release/installer/swap"
)

// restartAgent stops the agent, does something without it, and starts it again: in a later second than the
// one in which the agent before has ended (swap.Record).
func (h Host) restartAgent(
	ctx context.Context,
	unit string,
	between func(context.Context) error,
) (o swap.Outage, err error) {
	second := h.statusSecond()
	o.Stopped = time.Now()
	if err := h.Units.Stop(ctx, unit); err != nil {
		return o, err
	}
	ended := time.Now()

	if err := between(ctx); err != nil {
		return o, err
	}

	if err := h.sleepUntil(ctx, ended.Truncate(second).Add(second)); err != nil {
		return o, err
	}
	o.Started = time.Now()
	return o, h.Units.StartSoon(ctx, unit)
}

// statusSecond is what the times in the status of a node are whole ones of.
func (h Host) statusSecond() time.Duration {
	if h.second > 0 {
		return h.second
	}
	return time.Second
}

// lateInSecond waits until the next second is near: what takes no time is done then, so that the agent is
// away for a part of a second only.
func (h Host) lateInSecond(ctx context.Context) error {
	second := h.statusSecond()
	return h.sleepUntil(ctx, time.Now().Truncate(second).Add(second*3/4))
}

// sleepUntil returns at once when the time is over, and after a second at the latest: the clock may have been
// set back.
func (h Host) sleepUntil(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(min(time.Until(t), h.statusSecond()))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

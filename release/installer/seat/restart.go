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
	second := h.second
	if second == 0 {
		second = time.Second
	}

	// Late in a second, so that the next one is near. Until then the agent runs.
	if err := sleepUntil(ctx, time.Now().Truncate(second).Add(second*3/4)); err != nil {
		return o, err
	}
	o.Stopped = time.Now()
	if err := h.Units.Stop(ctx, unit); err != nil {
		return o, err
	}
	ended := time.Now()

	if err := between(ctx); err != nil {
		return o, err
	}

	if err := sleepUntil(ctx, ended.Truncate(second).Add(second)); err != nil {
		return o, err
	}
	o.Started = time.Now()
	return o, h.Units.StartSoon(ctx, unit)
}

// sleepUntil returns at once when the time is over.
func sleepUntil(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

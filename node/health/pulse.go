package health

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

// Stall is after how long a loop that has not gone round is not well. It is kubelet's: less than that, the
// runtime or the API server may take for one call.
const Stall = 5 * time.Minute

// Pulse is when a loop was last seen to go round. The zero value has not begun, which is well. It is safe for
// concurrent use.
type Pulse struct {
	// Every is how often the loop is to go round. One that may pause for long stalls later.
	Every time.Duration

	last atomic.Int64
}

// Beat says that the loop goes round now.
func (p *Pulse) Beat() { p.last.Store(time.Now().UnixNano()) }

// Check returns an error if the loop has stalled.
func (p *Pulse) Check() error {
	last := p.last.Load()
	if last == 0 {
		return nil
	}
	if since := time.Since(time.Unix(0, last)); since > max(Stall, 2*p.Every) {
		return fmt.Errorf("the loop took longer than expected: it has not gone round for %s",
			since.Round(time.Second))
	}
	return nil
}

// feel is how often the pulse is felt.
const feel = 30 * time.Second

// Follow waits for a turn of what works, periodically until ctx ends. Each is a beat.
func (p *Pulse) Follow(ctx context.Context, turn func(context.Context) error) {
	p.Beat()
	for range retry.Every(ctx, feel) {
		if turn(ctx) == nil {
			p.Beat()
		}
	}
}

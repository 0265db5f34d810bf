// Package round divides the time of a watch into rounds, each of which begins with a list: a watch tells what
// has changed, and cannot tell that an event was lost on the way, or that nobody sends any more. A round is
// over when that is due, when nothing has come for long, or when what watches has found a reason. The package
// knows nothing of what is watched.
package round

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

// Why a round ends.
var (
	ErrDue      = errors.New("it is time to list again")
	ErrSilent   = errors.New("nothing has come on the watch for too long")
	ErrDisorder = errors.New("an event came after a newer one")
)

// pauses are those after rounds that ended because of disorder, which may come back at once.
var pauses = retry.Backoff{First: 50 * time.Millisecond, Max: 10 * time.Second, Jitter: 1}

// manyObjects is how many objects are listed again after the shortest time. A list of more costs the server
// and the network much, and comes so much more rarely that no more objects are read in the same time.
const manyObjects = 600

// Length returns how long a round of so many objects lasts: shortest, or longer for more than 600 objects,
// and up to twice that. It is random: the nodes of a cluster, which may have begun together, do not list
// together.
func Length(shortest time.Duration, objects int) time.Duration {
	least := max(shortest, shortest*time.Duration(objects)/manyObjects)
	return least + rand.N(least)
}

// Rounds are those of one watch. Make it with New. It is safe for concurrent use.
type Rounds struct {
	silence  time.Duration
	shortest time.Duration

	// mu guards the round that runs: end ends it, and so does silent, when nothing is heard. Both are nil
	// before the first one.
	mu     sync.Mutex
	end    context.CancelCauseFunc
	silent *time.Timer
}

// New returns rounds that end when nothing has been heard for the time of silence, and at the shortest after
// the other time. Both are above zero.
func New(silence, shortest time.Duration) *Rounds {
	return &Rounds{silence: silence, shortest: shortest}
}

// Run calls watch for each round until ctx ends. The context of a call ends with the round. objects returns
// how many objects are known.
func (r *Rounds) Run(ctx context.Context, objects func() int, watch func(ctx context.Context)) {
	back := pauses
	for ctx.Err() == nil {
		if why := r.run(ctx, objects(), watch); !errors.Is(why, ErrDisorder) {
			back.Reset()
			continue
		}
		if back.Wait(ctx) != nil {
			return
		}
	}
}

// run runs one round and returns why it ended.
func (r *Rounds) run(ctx context.Context, objects int, watch func(ctx context.Context)) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)

	due := time.AfterFunc(Length(r.shortest, objects), func() { end(ErrDue) })
	defer due.Stop()
	silent := time.AfterFunc(r.silence, func() { end(ErrSilent) })
	defer silent.Stop()

	r.mu.Lock()
	r.end, r.silent = end, silent
	r.mu.Unlock()

	watch(ctx)
	return context.Cause(ctx)
}

// Heard says that something has come, or was asked for.
func (r *Rounds) Heard() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.silent != nil {
		r.silent.Reset(r.silence)
	}
}

// End ends the round that runs.
func (r *Rounds) End(why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.end != nil {
		r.end(why)
	}
}

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

// askedGap is the time between two rounds that end because someone asked for it: a server that needs long for
// a list is not asked for more and more of them.
const askedGap = 30 * time.Second

// Length returns how long a round of so many objects lasts: shortest, or longer for more than 600 objects,
// and up to twice that. It is random: the nodes of a cluster, which may have begun together, do not list
// together.
func Length(shortest time.Duration, objects int) time.Duration {
	return length(shortest, objects, rand.Float64())
}

// length is Length with a share of what is added at random, in [0, 1).
func length(shortest time.Duration, objects int, share float64) time.Duration {
	least := max(shortest, shortest*time.Duration(objects)/manyObjects)
	return least + time.Duration(share*float64(least))
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

	// listed says that the round that runs has its list. later ends it when askedGap is over, nil if nobody
	// has asked. asked is when the last round ended because someone asked for it.
	listed bool
	later  *time.Timer
	asked  time.Time
}

// New returns rounds that end when nothing has been heard for the time of silence, and at the shortest after
// the other time. Both are above zero.
func New(silence, shortest time.Duration) *Rounds {
	return &Rounds{silence: silence, shortest: shortest}
}

// Run calls watch for each round until ctx ends. The context of a call ends with the round. objects returns
// how many objects are known; it may be called at any time during a round.
func (r *Rounds) Run(ctx context.Context, objects func() int, watch func(ctx context.Context)) {
	back := pauses
	for ctx.Err() == nil {
		if why := r.run(ctx, objects, watch); !errors.Is(why, ErrDisorder) {
			back.Reset()
			continue
		}
		if back.Wait(ctx) != nil {
			return
		}
	}
}

// run runs one round and returns why it ended.
func (r *Rounds) run(ctx context.Context, objects func() int, watch func(ctx context.Context)) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)

	go r.endWhenDue(ctx, end, objects)
	silent := time.AfterFunc(r.silence, func() { end(ErrSilent) })
	defer silent.Stop()

	r.mu.Lock()
	r.end, r.silent, r.listed = end, silent, false
	r.mu.Unlock()
	defer r.forget()

	watch(ctx)
	return context.Cause(ctx)
}

// endWhenDue ends a round that has lasted long enough. How many objects there are is asked again then: before
// the first list none are known.
func (r *Rounds) endWhenDue(ctx context.Context, end context.CancelCauseFunc, objects func() int) {
	began, share := time.Now(), rand.Float64()
	for {
		rest := length(r.shortest, objects(), share) - time.Since(began)
		if rest <= 0 {
			end(ErrDue)
			return
		}
		if retry.Sleep(ctx, rest) != nil {
			return
		}
	}
}

// forget drops what was asked for in a round that is over: the next one lists.
func (r *Rounds) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listed = false
	if r.later != nil {
		r.later.Stop()
		r.later = nil
	}
}

// Listed says that the round that runs has its list.
func (r *Rounds) Listed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listed = true
}

// Ask asks for another list. It does nothing in a round that has none yet, which would else never get one
// from a slow server. Rounds that end because of it are at least 30 s apart: until then, the request waits.
func (r *Rounds) Ask() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.listed || r.later != nil {
		return
	}

	end := r.end
	r.later = time.AfterFunc(max(0, askedGap-time.Since(r.asked)), func() {
		r.mu.Lock()
		r.asked = time.Now()
		r.mu.Unlock()
		end(ErrDue)
	})
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

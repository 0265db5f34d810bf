package run

import (
	"context"
	"fmt"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

const minute = time.Minute

// How often the nodes are looked at, and how long one may be unfit before the run ends: a node whose agent is
// late with its lease is back within that time.
const (
	lookInterval = 10 * time.Second
	unfitLimit   = time.Minute
)

// DeadNodeError ends a run whose cluster has lost a node.
type DeadNodeError struct {
	// Reason names the node.
	Reason error
}

func (e *DeadNodeError) Error() string {
	return fmt.Sprintf("stopped, with all results so far kept: for %s, %v", unfitLimit, e.Reason)
}

// watch looks at the nodes until ctx ends. It ends the run by stop when one stays unfit.
func (r *Run) watch(ctx context.Context, stop context.CancelCauseFunc) {
	if err := r.looks(ctx, false); err != nil {
		stop(err)
	}
}

// settle returns when the nodes are fit, and all failures are in the log.
func (r *Run) settle(ctx context.Context) error { return r.looks(ctx, true) }

// looks looks at the nodes until ctx ends, or once they are fit. It returns an error when one of them stays
// unfit, or a result cannot be kept.
func (r *Run) looks(ctx context.Context, once bool) error {
	var unfit time.Time
	for range retry.Every(ctx, lookInterval) {
		held := r.holding()
		err := r.look(ctx)
		switch {
		case ctx.Err() != nil:
		case err == nil:
			unfit = time.Time{}
			if err := r.release(held); err != nil || once {
				return err
			}

		case unfit.IsZero():
			unfit = time.Now()
		case time.Since(unfit) >= unfitLimit:
			return &DeadNodeError{Reason: err}
		}
	}

	if once {
		return context.Cause(ctx)
	}

	return nil
}

func (r *Run) look(ctx context.Context) error {
	if r.cfg.Nodes == nil {
		return nil
	}
	return r.cfg.Nodes(ctx)
}

// holding is how many failures are held.
func (r *Run) holding() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.held)
}

// release keeps the first n of the failures that are held: the nodes were fit after them.
func (r *Run) release(n int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, result := range r.held[:n] {
		if err := r.cfg.Log.Add(result, r.again); err != nil {
			return err
		}
	}

	r.held = r.held[n:]
	return nil
}

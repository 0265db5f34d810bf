// Package slots bounds how many of something are done at the same time, unless they hang: what hangs must not
// hold up what others want to do.
package slots

import (
	"context"
	"sync"
	"time"
)

// Slots is a number of slots. It is safe for concurrent use.
type Slots struct {
	taken chan struct{}
	limit time.Duration
}

// New returns n slots, at least one. Who has had one for longer than limit goes on without it.
func New(n int, limit time.Duration) *Slots {
	return &Slots{taken: make(chan struct{}, max(n, 1)), limit: limit}
}

// Take waits for a slot, and returns how to give it back. It fails when ctx ends before.
func (s *Slots) Take(ctx context.Context) (release func(), err error) {
	select {
	case s.taken <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}

	free := sync.OnceFunc(func() { <-s.taken })
	late := time.AfterFunc(s.limit, free)
	return func() {
		late.Stop()
		free()
	}, nil
}

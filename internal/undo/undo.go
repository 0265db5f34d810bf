// Package undo takes back the finished steps of an operation whose later step failed.
package undo

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Stack collects, step by step, how to take each one back. The zero value is ready; it is not safe for
// concurrent use.
type Stack struct{ steps []step }

type step struct {
	name string
	undo func(context.Context) error
}

// Push adds the way back of a step that has just succeeded (or may have half succeeded: undo must accept what
// is not there).
func (s *Stack) Push(name string, undo func(context.Context) error) {
	s.steps = append(s.steps, step{name, undo})
}

// timeout bounds the whole way back: the caller may be gone, and its context with it.
const timeout = 30 * time.Second

// Unwind runs the steps in reverse if *errp is not nil, each of them even when another fails, and joins their
// errors to *errp. It works though ctx is cancelled. Use: defer u.Unwind(ctx, &err).
func (s *Stack) Unwind(ctx context.Context, errp *error) {
	if *errp == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	for i := len(s.steps) - 1; i >= 0; i-- {
		if err := s.steps[i].undo(ctx); err != nil {
			*errp = errors.Join(*errp, fmt.Errorf("undo %s: %w", s.steps[i].name, err))
		}
	}
	s.steps = nil
}

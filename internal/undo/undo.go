// Package undo undoes the completed steps of an operation when a later step fails.
package undo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Stack holds how to undo each step so far. The zero value is ready for use. It must not be used by two
// goroutines at the same time.
type Stack struct{ steps []step }

type step struct {
	name string
	undo func(context.Context) error
}

// Push adds how to undo a step that has just succeeded, or is about to be tried: undo must accept that what
// it removes is not there.
func (s *Stack) Push(name string, undo func(context.Context) error) {
	s.steps = append(s.steps, step{name, undo})
}

// timeout bounds Unwind as a whole, which does not end with the caller's context.
const timeout = 30 * time.Second

// Unwind undoes the steps in reverse order if *errp is not nil. It goes on when one of them fails, and when
// ctx is cancelled, and joins the errors to *errp. Use it as: defer u.Unwind(ctx, &err).
func (s *Stack) Unwind(ctx context.Context, errp *error) {
	if *errp == nil {
		return
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()

	for _, step := range slices.Backward(s.steps) {
		if err := step.undo(ctx); err != nil {
			*errp = errors.Join(*errp, fmt.Errorf("undo %s: %w", step.name, err))
		}
	}

	s.steps = nil
}

package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// noPod takes turns like a pod's UID, and is looked at by nobody.
const noPod = ""

// errClosed is the answer after the end of Run.
var errClosed = errors.New("the queue of pods is closed")

// Turn waits for a turn, the next one, and returns nil when a worker has come to it: some worker is free, and
// takes turns. How many pods wait does not matter: a worker that is slow with each of them works.
func (q *Queue) Turn(ctx context.Context) error {
	passed, err := q.line()
	if err != nil {
		return err
	}

	select {
	case <-passed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no worker has come to a look at a pod: %w", context.Cause(ctx))
	}
}

// line gets to the front of the line. All who wait have one turn in common, so that workers that hang do not
// make it long.
func (q *Queue) line() (<-chan struct{}, error) {
	q.mu.Lock()
	defer q.mu.Unlock()

	if q.closed {
		return nil, errClosed
	}
	if len(q.passing) == 0 {
		q.turns = slices.Insert(q.turns, 0, noPod)
		q.filled.Signal()
	}

	passed := make(chan struct{})
	q.passing = append(q.passing, passed)
	return passed, nil
}

// pass answers all who wait.
func (q *Queue) pass() {
	q.mu.Lock()
	defer q.mu.Unlock()

	for _, passed := range q.passing {
		close(passed)
	}
	q.passing = nil
}

// Package queue is the work queue of a controller: keys of objects that are to be looked at, each handled by
// one worker at a time however often it is added, and again later, with growing pauses, when that fails.
package queue

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/trivet-node/trivet/internal/retry"
)

// Queue holds keys. Make it with New. It is safe for concurrent use.
type Queue struct {
	keys workqueue.TypedRateLimitingInterface[string]
}

// New returns a queue. After a failure a key is handled again with the pauses of the back-off; its Jitter is
// not used.
func New(pauses retry.Backoff) *Queue {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](pauses.First, pauses.Max)
	return &Queue{keys: workqueue.NewTypedRateLimitingQueue(limiter)}
}

// Add has a key handled soon. One that is being handled is handled once more afterwards.
func (q *Queue) Add(key string) { q.keys.Add(key) }

// AddAfter has a key handled after the duration.
func (q *Queue) AddAfter(key string, d time.Duration) { q.keys.AddAfter(key, d) }

// Run handles keys with a number of workers until ctx ends, and returns when they have. A key whose handle
// returns an error comes again.
func (q *Queue) Run(ctx context.Context, workers int, handle func(ctx context.Context, key string) error) {
	stop := context.AfterFunc(ctx, q.keys.ShutDown)
	defer stop()

	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for q.handleNext(ctx, handle) {
			}
		})
	}
	running.Wait()
}

// handleNext handles one key. It reports whether there may be more.
func (q *Queue) handleNext(ctx context.Context, handle func(ctx context.Context, key string) error) bool {
	key, down := q.keys.Get()
	if down {
		return false
	}
	defer q.keys.Done(key)

	if ctx.Err() != nil {
		// what is left is not begun
		return true
	}

	if err := handle(ctx, key); err != nil && ctx.Err() == nil {
		q.keys.AddRateLimited(key)
		return true
	}

	q.keys.Forget(key)
	return true
}

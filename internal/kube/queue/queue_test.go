package queue_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trivet-node/trivet/internal/kube/queue"
	"github.com/trivet-node/trivet/internal/retry"
)

var pauses = retry.Backoff{First: time.Second, Max: 4 * time.Second}

func TestAKeyThatFailsComesAgainLaterEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		q := queue.New(pauses)
		start := time.Now()
		var at []time.Duration
		q.Add("a")
		q.Run(ctx, 1, func(context.Context, string) error {
			at = append(at, time.Since(start).Round(time.Second))
			if len(at) == 5 {
				cancel()
			}

			return errors.New("not yet")
		})

		want := []time.Duration{0, 1, 3, 7, 11}
		for i := range want {
			if at[i] != want[i]*time.Second {
				t.Errorf("attempt %d after %v, want %d s", i, at[i], want[i])
			}
		}
	})
}

func TestAKeyIsHandledByOneWorkerAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		q := queue.New(pauses)
		var running sync.WaitGroup
		var mu sync.Mutex
		var busy, calls int
		running.Go(func() {
			q.Run(ctx, 4, func(context.Context, string) error {
				mu.Lock()
				busy++
				calls++
				if busy > 1 {
					t.Error("two workers have one key")
				}

				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				busy--
				mu.Unlock()
				return nil
			})
		})

		q.Add("a")
		synctest.Wait()
		q.Add("a")
		q.Add("a")
		q.AddAfter("a", time.Minute)
		time.Sleep(2 * time.Minute)
		cancel()
		running.Wait()
		if calls != 3 {
			t.Errorf("handled %d times, want 3", calls)
		}
	})
}

func TestWhatIsLeftIsNotBegunAtTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q := queue.New(pauses)
	q.Add("a")
	q.Run(ctx, 2, func(context.Context, string) error {
		t.Error("handled after the end")
		return nil
	})
}

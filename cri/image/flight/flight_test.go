package flight_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/trivet-node/trivet/cri/image/flight"
)

func TestCallersOfOneKeyShareTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flight.Group[int]
		calls := 0
		finish := make(chan struct{})
		work := func(context.Context) (int, error) {
			calls++
			<-finish
			return calls, nil
		}

		joined := make(chan bool, 3)
		for range 3 {
			go func() {
				value, j, err := g.Do(t.Context(), "key", work)
				if value != 1 || err != nil {
					t.Errorf("got %d, %v", value, err)
				}

				joined <- j
			}()
		}

		synctest.Wait()
		close(finish)

		started := 0
		for range 3 {
			if !<-joined {
				started++
			}
		}

		if started != 1 || calls != 1 {
			t.Errorf("%d callers started %d pieces of work", started, calls)
		}
	})
}

func TestTheWorkEndsWithItsLastWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flight.Group[int]
		cancelled := false
		work := func(ctx context.Context) (int, error) {
			<-ctx.Done()
			cancelled = true
			return 0, ctx.Err()
		}

		gone := errors.New("the caller is gone")
		first, leaveFirst := context.WithCancelCause(t.Context())
		second, leaveSecond := context.WithCancelCause(t.Context())
		for _, ctx := range []context.Context{first, second} {
			go func() {
				if _, _, err := g.Do(ctx, "key", work); !errors.Is(err, gone) {
					t.Errorf("got %v, want the cause of the context", err)
				}
			}()
		}

		synctest.Wait()
		leaveFirst(gone)
		synctest.Wait()
		if cancelled {
			t.Error("the work ended although a caller waited for it")
		}

		leaveSecond(gone)
		g.Wait()
		if !cancelled {
			t.Error("the work went on although nobody waited for it")
		}
	})
}

func TestWorkThatWasCancelledIsNotJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flight.Group[string]
		end := make(chan struct{})
		slow := func(context.Context) (string, error) {
			<-end
			return "cancelled", nil
		}

		ctx, cancel := context.WithCancel(t.Context())
		go g.Do(ctx, "key", slow)
		synctest.Wait()
		cancel()
		synctest.Wait()

		value, joined, err := g.Do(
			t.Context(),
			"key",
			func(context.Context) (string, error) { return "new", nil },
		)
		if value != "new" || joined || err != nil {
			t.Errorf("got %q, joined %t, %v", value, joined, err)
		}

		close(end)
		g.Wait()
	})
}

func TestAnErrorIsNotKept(t *testing.T) {
	var g flight.Group[int]
	failed := errors.New("failed")
	_, _, err := g.Do(t.Context(), "key", func(context.Context) (int, error) { return 0, failed })
	if !errors.Is(err, failed) {
		t.Errorf("got %v, want the error of the work", err)
	}

	value, _, err := g.Do(t.Context(), "key", func(context.Context) (int, error) { return 7, nil })
	if value != 7 || err != nil {
		t.Errorf("the next call: %d, %v", value, err)
	}
}

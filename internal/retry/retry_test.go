package retry_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

func TestPausesDoubleUpToTheLimit(t *testing.T) {
	for name, c := range map[string]struct {
		backoff retry.Backoff
		want    []time.Duration
	}{
		"limited":   {retry.Backoff{First: 2, Max: 7}, []time.Duration{2, 4, 7, 7}},
		"unlimited": {retry.Backoff{First: 2}, []time.Duration{2, 4, 8, 16}},
		"constant":  {retry.Backoff{First: 3, Max: 3}, []time.Duration{3, 3, 3, 3}},
	} {
		var got []time.Duration
		for range c.want {
			got = append(got, c.backoff.Next())
		}

		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}

		c.backoff.Reset()
		if first := c.backoff.Next(); first != c.want[0] {
			t.Errorf("%s: %v after a reset", name, first)
		}
	}
}

func TestJitterOnlyLengthensAPause(t *testing.T) {
	b := retry.Backoff{First: time.Second, Max: time.Second, Jitter: 0.5}
	var different bool
	for range 100 {
		pause := b.Next()
		if pause < time.Second || pause > 1500*time.Millisecond {
			t.Fatalf("a pause of %v", pause)
		}

		different = different || pause != time.Second
	}

	if !different {
		t.Error("no pause is spread")
	}
}

func TestAttemptsAreMadeUntilOneSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, calls := time.Now(), 0
		err := retry.Until(t.Context(), retry.Backoff{First: time.Second, Max: 2 * time.Second},
			func(context.Context) error {
				if calls++; calls < 4 {
					return errors.New("not yet")
				}

				return nil
			})
		if took := time.Since(start); err != nil || calls != 4 || took != 5*time.Second {
			t.Errorf("%v after %d calls and %v", err, calls, took)
		}
	})
}

func TestAttemptsEndWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()

		calls := 0
		broken := errors.New("broken")

		err := retry.Until(ctx, retry.Backoff{First: time.Second, Max: time.Second},
			func(context.Context) error {
				calls++
				return broken
			})
		if !errors.Is(err, broken) || calls != 4 {
			t.Errorf("%v after %d calls", err, calls)
		}
	})
}

func TestTheFirstAttemptIsMadeWhenTheContextHasEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := 0
	for range retry.Every(ctx, time.Hour) {
		calls++
	}
	if calls != 1 {
		t.Errorf("%d attempts", calls)
	}
}

func TestSleepReturnsTheCauseOfTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("shut down")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		if err := retry.Sleep(ctx, time.Minute); !errors.Is(err, why) {
			t.Errorf("error %v", err)
		}
		if err := retry.Sleep(t.Context(), time.Minute); err != nil {
			t.Errorf("error %v", err)
		}
	})
}

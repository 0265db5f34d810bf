package backoff

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var t0 = time.Unix(1_800_000_000, 0)

func TestRestartsBackOffAndAreForgotten(t *testing.T) {
	var r Restarts
	if at := r.Until(t0, t0, LongestRestart); !at.IsZero() {
		t.Errorf("the first restart waits until %v", at)
	}

	now, got := t0, []time.Duration{}
	for range 7 {
		r = r.Next(now, LongestRestart)
		got = append(got, r.Delay/time.Second)
		now = now.Add(r.Delay)
	}

	if diff := cmp.Diff([]time.Duration{10, 20, 40, 80, 160, 300, 300}, got); diff != "" {
		t.Error(diff)
	}
	if at := r.Until(now, now, LongestRestart); at.Sub(now) != LongestRestart {
		t.Errorf("waits until %v", at)
	}

	later := now.Add(2*LongestRestart + time.Second)
	if r.Next(later, LongestRestart).Delay != firstRestart {
		t.Error("ten minutes without a crash are not forgotten")
	}
}

func TestAClockThatWasSetBackDoesNotProlongTheDelay(t *testing.T) {
	r := Restarts{}.Next(t0, LongestRestart)
	if at := r.Until(t0.Add(time.Hour), t0, LongestRestart); !at.IsZero() {
		t.Errorf("waits for %s", at.Sub(t0))
	}
}

func TestALimitBelowTheFirstDelayIsKept(t *testing.T) {
	r := Restarts{}.Next(t0, time.Second)
	if at := r.Until(t0, t0, time.Second); at.Sub(t0) != time.Second {
		t.Errorf("waits for %s", at.Sub(t0))
	}
}

func TestRetriesGrowToTheLongest(t *testing.T) {
	for _, c := range []struct {
		name   string
		delays Retries
		want   []time.Duration
	}{
		{
			"steps",
			OfSteps,
			[]time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second},
		},
		{
			"pulls",
			OfPulls,
			[]time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f Failure
			for i, want := range c.want {
				f = f.Next(c.delays, "Reason", "message", t0)
				if got := f.Retry.Sub(t0); got != want {
					t.Errorf("after failure %d: %s, want %s", i+1, got, want)
				}
			}

			for range 100 {
				f = f.Next(c.delays, "Reason", "message", t0)
			}

			if got := f.Retry.Sub(t0); got != c.delays.Longest {
				t.Errorf("after many failures: %s, want %s", got, c.delays.Longest)
			}
		})
	}
}

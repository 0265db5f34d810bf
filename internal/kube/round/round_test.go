package round

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

// record runs rounds for as long as that, and returns how long each took and why it ended. In each, began is
// called first.
func record(
	t *testing.T, total time.Duration, objects int, began func(ctx context.Context, r *Rounds),
) (lengths []time.Duration, whys []error) {
	t.Helper()
	r := New(3*time.Minute, 10*time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), total)
	defer cancel()

	r.Run(ctx, func() int { return objects }, func(ctx context.Context) {
		start := time.Now()
		began(ctx, r)
		<-ctx.Done()
		lengths = append(lengths, time.Since(start))
		whys = append(whys, context.Cause(ctx))
	})
	return lengths, whys
}

// talk is a watch on which something comes each minute.
func talk(ctx context.Context, r *Rounds) {
	for range retry.Every(ctx, time.Minute) {
		r.Heard()
	}
}

func TestRoundsOfAWatchThatTalksEndWhenTheyAreDue(t *testing.T) {
	for objects, shortest := range map[int]time.Duration{
		0:    10 * time.Minute,
		600:  10 * time.Minute,
		6000: 100 * time.Minute,
	} {
		synctest.Test(t, func(t *testing.T) {
			lengths, whys := record(t, 24*time.Hour, objects, talk)
			for i, length := range lengths[:len(lengths)-1] {
				if length < shortest || length > 2*shortest || !errors.Is(whys[i], ErrDue) {
					t.Errorf("%d objects: a round of %v, %v", objects, length, whys[i])
				}
			}
		})
	}
}

func TestTheFirstRoundLastsAsLongAsTheObjectsOfItsListAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := New(3*time.Minute, 10*time.Minute)
		objects := atomic.Int64{}
		began := time.Now()
		r.Run(ctx, func() int { return int(objects.Load()) }, func(ctx context.Context) {
			defer cancel()
			objects.Store(6000)
			talk(ctx, r)
			if took := time.Since(began); took < 100*time.Minute || took > 200*time.Minute {
				t.Errorf("a round of %v", took)
			}
		})
	})
}

func TestARoundThatHasNoListYetIsNotEndedByThoseWhoAskForOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lengths, _ := record(t, 2*time.Minute, 0, func(ctx context.Context, r *Rounds) {
			for range retry.Every(ctx, time.Second) {
				r.Ask()
			}
		})
		if len(lengths) != 1 || lengths[0] != 2*time.Minute {
			t.Errorf("rounds of %v", lengths)
		}
	})
}

func TestListsThatWereAskedForAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lengths, whys := record(t, 2*time.Minute+time.Second, 0, func(ctx context.Context, r *Rounds) {
			r.Listed()
			r.Ask()
			r.Ask()
		})
		want := []time.Duration{0, askedGap, askedGap, askedGap, askedGap, time.Second}
		if !slices.Equal(lengths, want) || !errors.Is(whys[1], ErrDue) {
			t.Errorf("rounds of %v, want %v; %v", lengths, want, whys)
		}
	})
}

func TestSilenceEndsARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lengths, whys := record(t, 10*time.Minute, 0, func(ctx context.Context, r *Rounds) {
			_ = retry.Sleep(ctx, 30*time.Second)
			r.Heard()
		})
		if len(lengths) < 2 || lengths[0] != 210*time.Second || !errors.Is(whys[0], ErrSilent) {
			t.Errorf("rounds of %v, %v", lengths, whys)
		}
	})
}

func TestRoundsThatKeepEndingInDisorderComeMoreAndMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disorder := func(_ context.Context, r *Rounds) { r.End(ErrDisorder) }
		lengths, _ := record(t, time.Hour, 0, disorder)
		if n := len(lengths); n < 100 || n > 400 {
			t.Errorf("%d rounds in an hour", n)
		}
	})
}

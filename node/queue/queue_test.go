package queue

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// looks are the looks of a running queue, as "UID after DELAY: REASONS".
type looks struct {
	began time.Time

	mu  sync.Mutex // guards all
	all []string
}

func (l *looks) look(_ context.Context, uid types.UID, why Reasons) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, fmt.Sprintf("%s after %s: %s", uid, time.Since(l.began), why))
}

// run runs the queue in the bubble of the test and returns its looks.
func run(t *testing.T, q *Queue, workers int) *looks {
	l := &looks{began: time.Now()}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { q.Run(ctx, workers, l.look) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return l
}

// after returns what was looked at when some time has passed.
func (l *looks) after(d time.Duration) []string {
	time.Sleep(d)
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("looks %q, want %q", got, want)
	}
}

func TestReasonsOfOnePodLeadToOneLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New()
		q.Look("b", PodChanged)
		q.Look("a", PodChanged)
		q.Look("b", StepEnded)
		q.Look("b", PodChanged)
		expect(t, run(t, q, 1).after(0), "b after 0s: pod changed, step ended", "a after 0s: pod changed")
	})
}

func TestAPodIsNeverLookedAtByTwoWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New()
		release := make(chan struct{})
		// mu guards the numbers of looks: those that run, the most that ran, and all.
		var mu sync.Mutex
		var running, most, total int

		ctx, cancel := context.WithCancel(t.Context())
		var workers sync.WaitGroup
		workers.Go(func() {
			q.Run(ctx, 4, func(context.Context, types.UID, Reasons) {
				mu.Lock()
				running++
				most = max(most, running)
				total++
				mu.Unlock()

				<-release

				mu.Lock()
				running--
				mu.Unlock()
			})
		})

		for range 3 {
			q.Look("a", StepEnded)
			synctest.Wait()
		}

		close(release)
		synctest.Wait()
		cancel()
		workers.Wait()
		if most != 1 || total != 2 {
			t.Errorf("%d looks, %d at once; want one, and one more for all that came meanwhile", total, most)
		}
	})
}

func TestADelayedLookComesWhenItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New()
		l := run(t, q, 1)
		q.LookAfter("a", time.Minute, TimerDue)
		expect(t, l.after(time.Minute-1))
		expect(t, l.after(1), "a after 1m0s: timer due")
	})
}

func TestOfSeveralDelaysTheEarliestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New()
		l := run(t, q, 1)
		q.LookAfter("a", 2*time.Second, TimerDue)
		q.LookAfter("a", time.Second, StatusDue)
		q.LookAfter("a", 3*time.Second, Retry)
		expect(t, l.after(time.Hour), "a after 1s: status due")
	})
}

func TestALookDoesNotReplaceADelayedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New()
		l := run(t, q, 1)
		q.LookAfter("a", time.Second, TimerDue)
		q.Look("a", PodChanged)
		q.LookAfter("b", 0, Retry)
		expect(t, l.after(time.Hour),
			"a after 0s: pod changed",
			"b after 0s: retry",
			"a after 1s: timer due",
		)
	})
}

func TestRunEndsWhenTheLastLookHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New()
		ctx, cancel := context.WithCancel(t.Context())
		looked := false
		var running sync.WaitGroup
		running.Go(func() {
			q.Run(ctx, 2, func(ctx context.Context, _ types.UID, _ Reasons) {
				<-ctx.Done()
				time.Sleep(time.Second)
				looked = true
			})
		})

		q.Look("a", PodChanged)
		q.LookAfter("b", time.Minute, PodChanged)
		synctest.Wait()
		cancel()
		running.Wait()
		q.Look("c", PodChanged)
		if !looked {
			t.Error("the look was cut off")
		}
	})
}

func TestAQueueKeepsNothingOfPodsThatWereLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New()
		l := run(t, q, 1)
		for i := range 100 {
			q.Look(types.UID(fmt.Sprint(i)), PodChanged)
		}
		if n := len(l.after(0)); n != 100 || len(q.pods) != 0 {
			t.Errorf("%d looks, %d pods kept", n, len(q.pods))
		}
	})
}

func TestEachReasonHasWords(t *testing.T) {
	seen := map[string]bool{}
	for r := range Reason(reasons) {
		if r.String() == "" || seen[r.String()] {
			t.Errorf("reason %d is called %q", r, r)
		}
		seen[r.String()] = true
	}
}

func TestALookKnowsWhenItWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New()
		asked := time.Now()
		q.Look("a", PodChanged)
		if got := q.Asked("a"); !got.IsZero() {
			t.Errorf("before the look: %v", got)
		}

		time.Sleep(time.Second)
		q.Look("a", StepEnded)

		ctx, cancel := context.WithCancel(t.Context())
		q.Run(ctx, 1, func(_ context.Context, uid types.UID, _ Reasons) {
			if got := q.Asked(uid); !got.Equal(asked) {
				t.Errorf("asked for at %v, want %v", got, asked)
			}
			cancel()
		})
	})
}

func TestATurnIsTakenBetweenThoseOfPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New()
		q.Look("a", PodChanged)
		l := run(t, q, 1)
		for range 2 {
			if err := q.Turn(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		expect(t, l.after(0), "a after 0s: "+of(PodChanged).String())
	})
}

func TestATurnDoesNotWaitForAllPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New()
		for i := range 100 {
			q.Look(types.UID(fmt.Sprint(i)), PodChanged)
		}

		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		slow := func(context.Context, types.UID, Reasons) { time.Sleep(time.Second) }
		running.Go(func() { q.Run(ctx, 1, slow) })
		synctest.Wait()

		began := time.Now()
		if err := q.Turn(ctx); err != nil || time.Since(began) > time.Second {
			t.Errorf("a turn after %v, %v, want that after the look that goes on", time.Since(began), err)
		}

		cancel()
		running.Wait()
	})
}

func TestNoTurnIsTakenWhileAllWorkersHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New()
		release := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { q.Run(ctx, 1, func(context.Context, types.UID, Reasons) { <-release }) })
		q.Look("a", PodChanged)
		synctest.Wait()

		// Each that waits takes no turn of its own.
		for range 3 {
			short, end := context.WithTimeout(ctx, time.Second)
			if err := q.Turn(short); err == nil {
				t.Error("a turn was taken")
			}
			end()
		}
		if len(q.turns) != 1 {
			t.Errorf("%d turns are waited for, want 1", len(q.turns))
		}

		close(release)
		if err := q.Turn(ctx); err != nil {
			t.Error(err)
		}

		cancel()
		running.Wait()
		if err := q.Turn(t.Context()); err == nil {
			t.Error("a turn was taken after the end")
		}
	})
}

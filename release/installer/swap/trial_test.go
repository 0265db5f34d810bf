package swap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

func TestJudgements(t *testing.T) {
	now := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	soon, over := now.Add(time.Second), ago(time.Second)
	down := errors.New("is down")

	for name, c := range map[string]struct {
		phase    Phase
		deadline time.Time
		seen     sight
		want     Phase
		why      string
	}{
		"waits":      {Trying, soon, sight{process: 1, since: now}, Trying, ""},
		"works":      {Trying, soon, sight{process: 1, since: now, confirmed: true}, Proving, ""},
		"word alone": {Trying, soon, sight{confirmed: true}, Trying, ""},
		"no word":    {Trying, over, sight{process: 1, since: now, doubt: "no pod"}, Reverting, "no pod"},
		"no process": {Trying, over, sight{confirmed: true, err: down}, Reverting, "is down"},
		"lives":      {Proving, soon, sight{process: 1, since: ago(time.Second), alive: now}, Proving, ""},
		"lives on":   {Proving, over, sight{process: 1, since: ago(usualProof), alive: now}, Settling, ""},
		"is silent":  {Proving, soon, sight{process: 1, since: ago(usualProof)}, Proving, ""},
		"hangs":      {Proving, over, sight{process: 1, since: ago(usualProof)}, Retreating, "nobody said"},
		"hangs by now": {
			Proving, over, sight{process: 1, since: ago(usualProof), alive: ago(aliveLimit)},
			Retreating, "nobody said",
		},
		"is not seen": {Proving, soon, sight{since: ago(usualProof), err: down}, Retreating, "is down"},
		"ended twice": {Proving, soon, sight{process: 3, since: now, ends: 2}, Proving, ""},
		"ends":        {Proving, soon, sight{process: 4, since: now, ends: 3}, Retreating, "ended 3 times"},
		"is down":     {Proving, soon, sight{since: ago(time.Second)}, Proving, ""},
		"stays down":  {Proving, soon, sight{since: ago(downLimit)}, Retreating, "none runs"},
		"late":        {Proving, over, sight{process: 1, since: now}, Retreating, "no process has run"},
	} {
		record := Record{Phase: c.phase, Deadline: c.deadline, Order: Order{Trial: time.Minute}}
		phase, why := judge(record, c.seen, now)
		if phase != c.want || (why == nil) != (c.why == "") {
			t.Errorf("%s: %s because %v, want %s because of %q", name, phase, why, c.want, c.why)
			continue
		}
		if why != nil && !strings.Contains(why.Error(), c.why) {
			t.Errorf("%s: because %v, want %q", name, why, c.why)
		}
	}
}

// phases are those that the record stays in, until the order is done; not those that take no time.
func phases(t *testing.T, folder Folder) func() string {
	var seen []string
	done := make(chan struct{})

	go func() {
		defer close(done)
		for range retry.Every(t.Context(), 20*time.Millisecond) {
			r, err := folder.Record()
			if err != nil {
				t.Error(err)
				return
			}

			isMoment := r.Phase == Settling || r.Phase == Reverting
			if !isMoment && (len(seen) == 0 || seen[len(seen)-1] != string(r.Phase)) {
				seen = append(seen, string(r.Phase))
			}
			if r.Phase == Done {
				return
			}
		}
	}()

	return func() string {
		<-done
		return strings.Join(seen, " ")
	}
}

func TestNodeIsInUseBeforeTheProof(t *testing.T) {
	for restarts, want := range map[int]string{
		0:    "proving done",
		1000: "proving retreating done",
	} {
		s, folder := &seat{restarts: restarts}, Folder(t.TempDir())
		synctest.Test(t, func(t *testing.T) {
			if err := folder.Give(Order{ID: "a", To: next, Trial: time.Minute}); err != nil {
				t.Fatal(err)
			}
			ctx, end := context.WithCancel(t.Context())
			go pod(ctx, t, folder)
			seen := phases(t, folder)

			began := time.Now()
			run(t, folder, s)
			if got := seen(); !strings.HasSuffix(got, want) {
				t.Errorf("%d restarts: %s, want %s", restarts, got, want)
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("%d restarts: it took %s", restarts, took)
			}

			end()
			synctest.Wait()
		})
	}
}

// TestNodeThatNobodyDrainsGoesBackInTime is of a pod that is gone.
func TestNodeThatNobodyDrainsGoesBackInTime(t *testing.T) {
	s, folder := &seat{state: next}, Folder(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		order := Order{ID: "a", To: next}
		record := Record{
			Order:    order,
			Phase:    Retreating,
			Failure:  "x",
			Deadline: time.Now().Add(retreatLimit),
		}
		if err := errors.Join(folder.Give(order), folder.write(recordFile, record)); err != nil {
			t.Fatal(err)
		}

		began := time.Now()
		record = run(t, folder, s)
		if took := time.Since(began); s.state != Out || took < retreatLimit || took > 2*retreatLimit {
			t.Errorf("record %+v, seat %+v after %s", record, s, took)
		}
	})
}

// TestDeadlinesOutliveNoClock is of a clock that was set back while the machine was cut off.
func TestDeadlinesOutliveNoClock(t *testing.T) {
	for phase, limit := range map[Phase]time.Duration{Trying: time.Minute, Retreating: retreatLimit} {
		s, folder := &seat{state: next}, Folder(t.TempDir())
		synctest.Test(t, func(t *testing.T) {
			order := Order{ID: "a", To: next, Trial: time.Minute}
			record := Record{Order: order, Phase: phase, Deadline: time.Now().Add(24 * time.Hour)}
			if phase == Retreating {
				record.Failure = "x"
			}
			if err := errors.Join(folder.Give(order), folder.write(recordFile, record)); err != nil {
				t.Fatal(err)
			}

			began := time.Now()
			record = run(t, folder, s)
			if took := time.Since(began); s.state != Out || took < limit || took > 2*limit {
				t.Errorf("%s: record %+v, seat %+v after %s", phase, record, s, took)
			}
		})
	}
}

// TestNodeThatHangsIsTakenBack is of one whose process lives, and which nobody says to be alive.
func TestNodeThatHangsIsTakenBack(t *testing.T) {
	s, folder := &seat{state: next}, Folder(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		order := Order{ID: "a", To: next}
		record := Record{Order: order, Phase: Proving}
		word := Word{ID: "a", Works: true, Alive: time.Now()}
		err := errors.Join(folder.Give(order), folder.write(recordFile, record), folder.Say(word))
		if err != nil {
			t.Fatal(err)
		}

		record = run(t, folder, s)
		if record.State() != Out || s.state != Out || !strings.Contains(record.Failure, "nobody said") {
			t.Errorf("record %+v, seat %+v", record, s)
		}
	})
}

// TestTrialGoesOnAfterACut is of a machine that is cut off while the node is on trial: its next process has
// its time, but not more often than a node that works needs.
func TestTrialGoesOnAfterACut(t *testing.T) {
	for cuts, want := range map[int]State{1: next, maxAttempts: Out} {
		t.Run(fmt.Sprint(cuts), func(t *testing.T) {
			s, folder := &seat{state: next}, Folder(t.TempDir())
			synctest.Test(t, func(t *testing.T) {
				order := Order{ID: "a", To: next}
				record := Record{
					Order:    order,
					Phase:    Proving,
					Attempts: 1,
					Deadline: time.Now(),
				}
				if err := errors.Join(folder.Give(order), folder.write(recordFile, record)); err != nil {
					t.Fatal(err)
				}

				podCtx, end := context.WithCancel(t.Context())
				defer end()
				go pod(podCtx, t, folder)
				for range cuts - 1 {
					ctx, cut := context.WithTimeout(t.Context(), usualProof/2)
					if err := machine(t, folder, s).Run(ctx); err == nil {
						t.Error("it was not cut off")
					}
					cut()
				}
				if record = run(t, folder, s); record.State() != want || s.state != want {
					t.Errorf("record %+v, seat %+v", record, s)
				}
				end()
				synctest.Wait()
			})
		})
	}
}

// TestProcessThatIsNotSeenOnceHasNotEnded is of a systemd that does not answer for a moment.
func TestProcessThatIsNotSeenOnceHasNotEnded(t *testing.T) {
	s := &seat{}
	w := watch{seat: s, state: next}
	now := time.Now()
	for i, unseen := range []error{nil, errors.New("no answer"), nil} {
		s.unseen = unseen
		w.look(t.Context(), now.Add(time.Duration(i)*processPoll))
	}
	if w.seen.ends != 0 || w.seen.since.Before(now.Add(2*processPoll)) {
		t.Errorf("seen %+v", w.seen)
	}

	s.restarts = 1
	w.known = 7
	if seen := w.look(t.Context(), now.Add(3*processPoll)); seen.ends != 1 {
		t.Errorf("seen %+v", seen)
	}
}

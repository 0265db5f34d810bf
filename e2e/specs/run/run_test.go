package run_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trivet-node/trivet/e2e/specs"
	"github.com/trivet-node/trivet/e2e/specs/results"
	"github.com/trivet-node/trivet/e2e/specs/run"
	"github.com/trivet-node/trivet/e2e/specs/suite"
)

var errBroken = errors.New("the suite cannot start")

// fake is a suite whose specs take a minute each, one after the other. Those in fails fail as many times as
// it says.
type fake struct {
	// silent has results seen only in the report; breaks is a batch that cannot run.
	silent bool
	breaks string

	// mu guards what follows: batches run at the same time.
	mu    sync.Mutex
	fails map[string]int
	calls []string
}

func (f *fake) Run(
	ctx context.Context, b suite.Batch, ended func(suite.Result),
) ([]suite.Result, error) {
	f.begin(b)
	if b.Name == f.breaks {
		return nil, errBroken
	}

	var all []suite.Result
	for _, n := range b.Specs {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(time.Minute):
		}

		r := f.end(n)
		all = append(all, r)
		if b.Procs > 1 && !f.silent {
			ended(r)
		}
	}

	return all, nil
}

func (f *fake) begin(b suite.Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, b.Name+": "+strings.Join(b.Specs, ", "))
}

func (f *fake) end(name string) suite.Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := suite.Result{Name: name, Outcome: suite.Passed, Took: time.Minute}
	if f.fails[name] > 0 {
		f.fails[name]--
		r.Outcome, r.Message = suite.Failed, "boom"
	}

	return r
}

// states are those of all specs in a log.
func states(log *results.Log) map[string]results.State {
	all := map[string]results.State{}
	for name, r := range log.Set() {
		all[name] = r.State()
	}
	return all
}

func do(t *testing.T, f *fake, log run.Log, change func(*run.Config)) (string, error) {
	t.Helper()
	var out strings.Builder
	cfg := run.Config{
		Suite: f,
		Log:   log,
		Names: []string{"a", "b", "c", "d [Serial] [Disruptive]", "e [Disruptive]"},
		Procs: 2,
		Again: 2,
		Out:   &out,
	}
	if change != nil {
		change(&cfg)
	}

	err := run.New(cfg).Do(t.Context())
	return out.String(), err
}

func TestFailedSpecsRunAgainAloneAfterAllOthers(t *testing.T) {
	for _, silent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			log := results.InMemory()
			f := &fake{fails: map[string]int{"a": 1, "c": 2}, silent: silent}
			if _, err := do(t, f, log, nil); err != nil {
				t.Fatal(err)
			}

			want := []string{
				"together: a, b, c",
				"serial: d [Serial] [Disruptive]",
				"alone: e [Disruptive]",
				"alone: a",
				"alone: c",
			}
			if !slices.Equal(f.calls, want) {
				t.Errorf("calls of the suite %q, want %q", f.calls, want)
			}

			got := states(log)
			if got["a"] != results.Flaky || got["b"] != results.Passed || got["c"] != results.Failed {
				t.Errorf("states %v", got)
			}
		})
	}
}

func TestLongSpecsBeginWithTheFirstAndSerialOnesWaitForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		begun := time.Now()
		_, err := do(t, f, results.InMemory(), func(c *run.Config) {
			c.Times = specs.Times{"b": 5 * time.Minute}
		})
		if err != nil {
			t.Fatal(err)
		}

		// Two of three specs run one after the other, beside the long one.
		if took := time.Since(begun); took != 4*time.Minute {
			t.Errorf("the run took %v, want 4m", took)
		}

		slices.Sort(f.calls[:2])
		want := []string{
			"long: b",
			"together: a, c",
			"serial: d [Serial] [Disruptive]",
			"alone: e [Disruptive]",
		}
		if !slices.Equal(f.calls, want) {
			t.Errorf("calls of the suite %q, want %q", f.calls, want)
		}
	})
}

func TestAFaultOfOneBatchEndsTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{breaks: "long"}
		begun := time.Now()
		_, err := do(t, f, results.InMemory(), func(c *run.Config) {
			c.Times = specs.Times{"b": 5 * time.Minute}
		})
		if !errors.Is(err, errBroken) || time.Since(begun) != 0 {
			t.Errorf("%v after %v, want that of the batch at once", err, time.Since(begun))
		}
	})
}

func TestManyFailuresAreNotRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{fails: map[string]int{"a": 1, "b": 1, "c": 1}}
		out, err := do(t, f, results.InMemory(), nil)
		if err != nil || len(f.calls) != 3 {
			t.Errorf("%d calls, %v", len(f.calls), err)
		}
		if !strings.Contains(out, "3 specs failed, more than 2: they are not run again") {
			t.Errorf("output:\n%s", out)
		}
	})
}

func TestExceptionsAreNotRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{fails: map[string]int{"a": 2, "b": 2, "c": 2}}
		out, err := do(t, f, results.InMemory(), func(c *run.Config) {
			c.Excepted = map[string]string{"a": "kernel: it lacks a", "b": "kernel: it lacks b"}
		})
		if err != nil || len(f.calls) != 4 || f.calls[3] != "alone: c" {
			t.Errorf("calls %v, %v, output:\n%s", f.calls, err, out)
		}
	})
}

func TestSpecsWithAResultDoNotRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := results.InMemory()
		for _, r := range []suite.Result{
			{Name: "a", Outcome: suite.Passed},
			{Name: "b", Outcome: suite.Failed},
			{Name: "c", Outcome: suite.Skipped},
			{Name: "e [Disruptive]", Outcome: suite.Failed},
		} {
			if err := log.Add(r, false); err != nil {
				t.Fatal(err)
			}
		}

		if err := log.Add(suite.Result{Name: "b", Outcome: suite.Failed}, true); err != nil {
			t.Fatal(err)
		}

		f := &fake{}
		if _, err := do(t, f, log, nil); err != nil {
			t.Fatal(err)
		}

		want := []string{"serial: d [Serial] [Disruptive]", "alone: e [Disruptive]"}
		if !slices.Equal(f.calls, want) {
			t.Errorf("calls of the suite %q, want %q", f.calls, want)
		}
	})
}

func TestADeadNodeEndsTheRunAndItsFailuresDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		log := results.InMemory()
		f := &fake{fails: map[string]int{"b": 1, "c": 1}}
		_, err := do(t, f, log, func(cfg *run.Config) {
			cfg.Nodes = func(context.Context) error {
				if time.Since(begun) > 110*time.Second {
					return errors.New("node node1 is not Ready")
				}

				return nil
			}
		})

		if _, ok := errors.AsType[*run.DeadNodeError](err); !ok || !strings.Contains(err.Error(), "node1") {
			t.Errorf("error %v", err)
		}
		if got := states(log); len(got) != 1 || got["a"] != results.Passed {
			t.Errorf("states %v, want only what passed", got)
		}
	})
}

func TestANodeThatComesBackDoesNotEndTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		log := results.InMemory()
		f := &fake{fails: map[string]int{"b": 1}}
		_, err := do(t, f, log, func(cfg *run.Config) {
			cfg.Nodes = func(context.Context) error {
				if since := time.Since(begun); since > 110*time.Second && since < 140*time.Second {
					return errors.New("node node1 is not Ready")
				}

				return nil
			}
		})

		if got := states(log); err != nil || got["b"] != results.Flaky {
			t.Errorf("%v, states %v", err, got)
		}
	})
}

// full is a log on a full disk.
type full struct{ *results.Log }

func (full) Add(suite.Result, bool) error {
	return errors.New("keep a result: no space left on device")
}

func TestAResultThatCannotBeKeptEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		_, err := do(t, f, full{results.InMemory()}, nil)
		if err == nil || !strings.Contains(err.Error(), "no space left") || len(f.calls) != 1 {
			t.Errorf("%v after %d calls", err, len(f.calls))
		}
	})
}

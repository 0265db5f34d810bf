// Package run brings a set of specs to its end: what has no result yet runs in stages, in parallel as far as
// that is possible; then what has failed runs once more, alone. Each result is kept as it comes, so that a
// run that was cut off goes on where it was.
package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/trivet-node/trivet/e2e/specs"
	"github.com/trivet-node/trivet/e2e/specs/progress"
	"github.com/trivet-node/trivet/e2e/specs/results"
	"github.com/trivet-node/trivet/e2e/specs/suite"
)

// Suite runs specs.
type Suite interface {
	// Run runs the specs of a batch and returns a result for each. ended is called for those that end earlier
	// than all of them do. Batches run at the same time.
	Run(ctx context.Context, b suite.Batch, ended func(suite.Result)) ([]suite.Result, error)
}

// Log keeps results.
type Log interface {
	Set() results.Set
	Add(r suite.Result, again bool) error
}

// Config says what runs.
type Config struct {
	Suite Suite
	Log   Log

	// Names are the specs of the set, which the suite has; Times how long they take, as far as that is known.
	Names []string
	Times specs.Times

	// Procs is how many specs run at the same time, 2 or more, or 1 for one after the other.
	Procs int

	// Again is how many specs may have failed that are run once more. If there are more, it is not by chance
	// that they fail, and none is.
	Again int

	// Excepted are specs that are known to fail, by their names: they are not run again.
	Excepted map[string]string

	// Nodes returns an error while a node of the cluster is not fit to run pods; nil: nobody looks.
	Nodes func(ctx context.Context) error

	// Out gets the progress.
	Out io.Writer
}

// Run is one run.
type Run struct {
	cfg      Config
	progress *progress.Progress

	// mu guards the log and held, the failures that are not in the log yet: a spec may fail because a node
	// has died, which says nothing about the spec.
	mu   sync.Mutex
	held []suite.Result

	// again is whether the specs that run now have failed before.
	again bool
}

// New returns a run.
func New(cfg Config) *Run {
	r := &Run{cfg: cfg}
	failed := 0
	for _, n := range cfg.Names {
		if record, ran := cfg.Log.Set()[n]; ran && record.First.Outcome == suite.Failed {
			failed++
		}
	}

	r.progress = progress.New(cfg.Out, cfg.Times, cfg.Procs, len(cfg.Names), failed, r.left())
	return r
}

// left are the specs without a result.
func (r *Run) left() []string {
	return slices.DeleteFunc(slices.Clone(r.cfg.Names), func(n string) bool {
		_, ran := r.cfg.Log.Set()[n]
		return ran
	})
}

// Do runs what is left. The error is about the run itself: failed specs are in the log, as is all that ended
// before an error.
func (r *Run) Do(ctx context.Context) error {
	left := r.left()
	done := len(r.cfg.Names) - len(left)
	fmt.Fprintf(r.cfg.Out, "%d specs: %d have results already, %d are left, which takes about %s\n",
		len(r.cfg.Names), done, len(left), r.progress.Left().Round(time.Second))
	if len(left) == 0 {
		fmt.Fprintln(r.cfg.Out, "FRESH=1 (--fresh) runs all of them again")
	}

	if err := r.all(ctx, stages(left, r.cfg.Times, r.cfg.Procs)); err != nil {
		return err
	}

	failed := r.failed()
	if len(failed) > r.cfg.Again {
		fmt.Fprintf(
			r.cfg.Out,
			"%d specs failed, more than %d: they are not run again\n",
			len(failed),
			r.cfg.Again,
		)

		return nil
	}

	if len(failed) > 0 {
		fmt.Fprintf(r.cfg.Out, "%d specs failed, each is run again alone\n", len(failed))
	}

	r.again = true
	return r.all(ctx, each(failed))
}

// failed are the specs that have failed once, without a reason that is known.
func (r *Run) failed() []string {
	return slices.DeleteFunc(slices.Clone(r.cfg.Names), func(n string) bool {
		record, ran := r.cfg.Log.Set()[n]
		return !ran || record.State() != results.Failed || record.Second != nil || r.cfg.Excepted[n] != ""
	})
}

// all runs stages one after the other.
func (r *Run) all(ctx context.Context, stages []stage) error {
	for _, s := range stages {
		if err := r.stage(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// stage runs batches at the same time, while somebody looks at the nodes.
func (r *Run) stage(ctx context.Context, batches stage) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	watched, done := context.WithCancel(ctx)
	var watch, calls sync.WaitGroup
	watch.Go(func() { r.watch(watched, stop) })
	for _, b := range batches {
		calls.Go(func() {
			if err := r.batch(ctx, stop, b); err != nil {
				stop(err)
			}
		})
	}

	calls.Wait()
	done()
	watch.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	return r.settle(ctx)
}

// batch runs one call of the suite. A result that cannot be kept ends the stage by stop.
func (r *Run) batch(ctx context.Context, stop context.CancelCauseFunc, b suite.Batch) error {
	seen := map[string]bool{}
	ended := func(result suite.Result) {
		// A spec that fails because the suite was told to end has not come to its end.
		if ctx.Err() != nil && result.Outcome != suite.Passed {
			return
		}

		seen[result.Name] = true
		if err := r.take(result); err != nil {
			stop(err)
		}
	}

	all, err := r.cfg.Suite.Run(ctx, b, ended)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	// What the suite did not show while it ran is in its report.
	for _, result := range all {
		if !seen[result.Name] && !result.LeftOut() {
			err = errors.Join(err, r.take(result))
		}
	}

	return err
}

// take keeps a result. A failure waits until the nodes have been looked at.
func (r *Run) take(result suite.Result) error {
	r.mu.Lock()
	defer r.mu.Unlock()

	if !r.again {
		r.progress.Ended(result)
	} else {
		fmt.Fprintf(r.cfg.Out, "again: %s %.1fs %s\n", result.Outcome, result.Took.Seconds(), result.Name)
	}

	if result.Outcome == suite.Failed {
		r.held = append(r.held, result)
		return nil
	}

	return r.cfg.Log.Add(result, r.again)
}

package seat

import (
	"context"
	"fmt"
	"time"

	"github.com/trivet-node/trivet/internal/retry"

	"github.com/trivet-node/trivet/release/installer/pods"
	"github.com/trivet-node/trivet/release/installer/swap"
)

// answers waits until a runtime serves.
func (r Runtime) answers(ctx context.Context, who pods.Runtime, limit time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return who.Serve(limited)
}

// serve has trivet-cri run as it is on disk.
func (r Runtime) serve(ctx context.Context) error {
	if err := r.Units.Enable(ctx, criUnit); err != nil {
		return err
	}

	if err := r.renew(ctx); err != nil {
		return err
	}
	return r.answers(ctx, r.at(criEndpoint), r.startLimit())
}

// running is what a process of trivet-cri was started with.
type running struct {
	Process int    `json:"process"`
	Sum     string `json:"sum"`
}

const runningCRI = "trivet-cri"

// renew starts trivet-cri again if its process does not run with the program, the unit and the configuration
// that are on disk. The one before may answer until it ends: it waits for the next.
func (r Runtime) renew(ctx context.Context) error {
	store, err := memory[running](r.Host)
	if err != nil {
		return err
	}
	last, err := store.Get(runningCRI)
	if err != nil && !isMissing(err) {
		return err
	}
	sum, err := r.sum(criProgram, criUnitPath, criConfig)
	if err != nil {
		return err
	}

	before, err := r.Units.Process(ctx, criUnit)
	if err != nil {
		return err
	}
	current, err := r.current(ctx, criUnit, criProgram)
	if err != nil {
		return err
	}
	if before != 0 && current && last == (running{Process: before, Sum: sum}) {
		return nil
	}

	if err := r.Units.RestartSoon(ctx, criUnit); err != nil {
		return err
	}
	now, err := r.next(ctx, before)
	if err != nil {
		return err
	}
	return store.Put(runningCRI, running{Process: now, Sum: sum})
}

// next waits for the process of trivet-cri that comes after another one.
func (r Runtime) next(ctx context.Context, before int) (process int, err error) {
	limited, cancel := context.WithTimeout(ctx, r.startLimit())
	defer cancel()
	pauses := retry.Backoff{First: 20 * time.Millisecond, Max: 500 * time.Millisecond}
	err = retry.Until(limited, pauses, func(ctx context.Context) error {
		if process, err = r.Units.Process(ctx, criUnit); err != nil {
			return err
		}
		current, err := r.current(ctx, criUnit, criProgram)
		if err != nil {
			return err
		}
		if process == 0 || process == before || !current {
			return fmt.Errorf("%s has not started with %s", criUnit, criProgram)
		}
		return nil
	})
	return process, err
}

// Check returns the process that has the seat; zero: it does not run.
func (r Runtime) Check(ctx context.Context, in swap.State) (process int, err error) {
	if in == swap.Out {
		was, err := r.recall()
		if err != nil {
			return 0, err
		}
		if was.Unit == "" {
			// Nothing was changed, so the agent is what there is to see.
			if was.Unit, err = r.agent(ctx); err != nil {
				return 0, err
			}
		}
		return r.Units.Process(ctx, was.Unit)
	}

	current, err := r.current(ctx, criUnit, criProgram)
	if err != nil {
		return 0, err
	}
	if !current {
		return 0, fmt.Errorf("%s does not run %s", criUnit, criProgram)
	}
	return r.Units.Process(ctx, criUnit)
}

// serveAgain has the runtime run that was there.
func (r Runtime) serveAgain(ctx context.Context, was before) error {
	if was.Enabled {
		if err := r.Units.Enable(ctx, was.Unit); err != nil {
			return err
		}
	}
	if err := r.Units.Start(ctx, was.Unit); err != nil {
		return err
	}

	return r.answers(ctx, r.at(was.Endpoint), r.startLimit())
}

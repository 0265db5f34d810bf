package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/internal/trace"
)

// Start lets the program of a created container run. A container that runs is success.
func (c *Service) Start(ctx context.Context, id string) error {
	r, unlock, err := c.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	step, err := life.Start(r.life())
	if err != nil {
		return fmt.Errorf("start container %s: %w", r.ID, err)
	}

	switch step {
	case life.StartNothing:
		return nil
	case life.StartFails:
		return c.failStart(r.ID, errors.New(r.Refused))
	}

	ended := trace.Step(ctx, "OCI start")
	err = c.cfg.Processes.Start(ctx, r.ID)
	ended(err)
	if errors.Is(err, monitor.ErrRefused) {
		return c.failStart(r.ID, err)
	}
	if err != nil {
		return fmt.Errorf("start container %s: %w", r.ID, err)
	}

	_, err = c.records.Change(r.ID, (*Record).start)
	return err
}

// failStart ends a container whose program does not run and never will. What is left of its first process is
// killed. The error is always that of the start.
func (c *Service) failStart(id string, cause error) error {
	failed := fmt.Errorf("start container %s: %w", id, cause)
	_, err := c.records.Change(id, func(r *Record) bool {
		end, changed := life.StartFailed(r.Reason, cause, time.Now())
		if changed {
			r.end(end)
		}

		return changed
	})

	c.ends.close(id)

	if killErr := c.cfg.Processes.Kill(id, unix.SIGKILL); killErr != nil &&
		!errors.Is(killErr, monitor.ErrNotFound) {
		c.cfg.Log.Warn("container that did not start is not killed", "container", id, "err", killErr)
	}

	return errors.Join(failed, err)
}

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/record"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/internal/retry"
)

// killWait bounds how long a SIGKILL may take to end a container, which may be in uninterruptible sleep.
const killWait = 2 * time.Minute

// Stop asks the container to end, and kills it after the grace period. A container that has ended or does not
// exist is success. It takes no lock by ID, so that a call with a shorter grace period need not wait for an
// earlier one.
func (c *Service) Stop(ctx context.Context, id string, grace time.Duration) error {
	r, err := c.Get(id)
	if errors.Is(err, record.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}

	end := c.ends.of(r.ID)
	switch life.Stop(r.State, end != nil, grace) {
	case life.StopNothing:
		return nil
	case life.StopAsks:
		signal := r.stopSignal(c.cfg.Images)
		kill := func() error { return c.cfg.Processes.Kill(r.ID, signal) }
		stopped, err := ask(ctx, kill, end, grace)
		if err != nil || stopped {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("stop container %s: %w", r.ID, context.Cause(ctx))
		}
	}

	if err := c.cfg.Processes.Kill(r.ID, unix.SIGKILL); err != nil {
		return err
	}
	if !ended(ctx, end, killWait) {
		return fmt.Errorf("stop container %s: it does not end after SIGKILL", r.ID)
	}

	return nil
}

// hearing is how often a program that has just been started is asked, until it notices the signal.
var hearing = retry.Backoff{First: 5 * time.Millisecond, Max: time.Second}

// ask sends a container the signal that asks it to end, and reports whether it ended within the grace period.
// The signal waits until the program notices it: sent before, it would be lost, and sent twice it would make
// many programs end without order.
func ask(ctx context.Context, kill func() error, end <-chan struct{}, grace time.Duration) (bool, error) {
	deadline := time.Now().Add(grace)
	left := func() time.Duration { return time.Until(deadline) }

	pause := hearing
	for {
		err := kill()
		if err == nil {
			return ended(ctx, end, left()), nil
		}
		if !errors.Is(err, monitor.ErrUnnoticed) {
			return false, err
		}

		if ended(ctx, end, min(pause.Next(), left())) {
			return true, nil
		}
		if ctx.Err() != nil || left() <= 0 {
			return false, nil
		}
	}
}

// stopSignal returns the signal that asks a container to end.
func (r Record) stopSignal(images Images) unix.Signal {
	if r.StopSignal != 0 {
		return r.StopSignal
	}
	// The records of earlier versions do not have it.
	ofImage := ""
	if img, err := images.Get(r.ImageID); err == nil {
		ofImage = img.Config.Config.StopSignal
	}
	return spec.StopSignal(r.config.GetStopSignal(), ofImage)
}

// ended waits for an end, and reports whether it came within the limit.
func ended(ctx context.Context, end <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-end:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// Remove kills a container if it runs, and forgets it. Its log is left. A container that does not exist is
// success.
func (c *Service) Remove(ctx context.Context, id string) error {
	r, unlock, err := c.lock(ctx, id)
	if errors.Is(err, record.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()

	// A client that looks meanwhile, or after a removal that was cut off, must not take its killed init for a
	// program that failed.
	if r.State == life.Created && !r.Discarded {
		r, err = c.records.Change(r.ID, func(r *Record) bool {
			r.Discarded = true
			return true
		})
		if err != nil {
			return err
		}
	}

	if err := c.destroy(ctx, r); err != nil {
		return fmt.Errorf("remove container %s: %w", r.ID, err)
	}

	return nil
}

// destroy removes everything. The record goes last, so that a removal that was killed is finished by the next
// one.
func (c *Service) destroy(ctx context.Context, r Record) error {
	if err := c.cfg.Processes.Delete(ctx, r.ID); err != nil {
		return err
	}
	if err := c.cfg.Bundles.Release(ctx, append([]string{r.ID}, r.ImageMounts...)...); err != nil {
		return err
	}
	if err := os.RemoveAll(c.dir(r.ID)); err != nil {
		return err
	}
	if err := c.records.Delete(r.ID); err != nil {
		return err
	}

	c.ends.close(r.ID)
	return nil
}

package monitor

import (
	"context"
	"errors"
	"fmt"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/wire"
	"github.com/trivet-node/trivet/cri/ociruntime"
)

// Create creates the container; its first process waits for Start. On an error nothing is left. Once asked
// for, a creation is waited for even if ctx ends (the monitor bounds it), so the caller always knows what
// there is. If the monitor is killed meanwhile, the restarted one undoes what was half made and Create is
// repeated.
func (c *Client) Create(ctx context.Context, container Container) (pid int, err error) {
	for repeated := false; ; repeated = true {
		l, err := c.connected(ctx)
		if err != nil {
			return 0, err
		}

		if h, err := c.lookup(container.ID); repeated && err == nil {
			// it was made, only the answer was lost
			return h.status.Pid, nil
		}

		m, files, err := l.call(context.WithoutCancel(ctx),
			wire.Message{Op: wire.OpCreate, ID: container.ID, Container: &container}, nil, nil)
		files.Close()
		switch {
		case errors.Is(err, errLost):
			continue
		case err != nil:
			return 0, err
		}

		return m.Status.Pid, nil
	}
}

// startLimit bounds what a runtime takes to let a program run that is all prepared.
const startLimit = 2 * time.Minute

// Start starts the user's program in a created container. One that runs is success: a caller that was killed
// may have started it. Once asked for, a start is carried through even if ctx ends: a runtime that is cut off
// may have let the program run already.
func (c *Client) Start(ctx context.Context, id string) error {
	h, err := c.lookup(id)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startLimit)
	defer cancel()

	if err = c.runner.Start(ctx, h.status.Runtime, id); err == nil {
		return nil
	}

	if state, stateErr := c.runner.State(ctx, h.status.Runtime, id); stateErr == nil &&
		state.Status == specs.StateRunning {
		return nil
	}

	return err
}

// Kill sends a signal to the container's first process. A container that has exited is no error.
func (c *Client) Kill(id string, signal unix.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()

	h := c.held[id]
	if h == nil {
		return notFound(id)
	}
	if h.exited() {
		return nil
	}
	if h.pidfd < 0 {
		return fmt.Errorf("signal container %s: its process is not held", id)
	}
	if err := unix.PidfdSendSignal(h.pidfd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal container %s: %w", id, err)
	}

	return nil
}

// Delete kills what is left of the container, removes the runtime's and the monitor's state of it, and
// forgets it. The CRI log stays. What is not there is success.
func (c *Client) Delete(ctx context.Context, id string) error {
	deleted := false
	if h, err := c.lookup(id); err == nil {
		if err = c.runner.Delete(ctx, h.status.Runtime, id); err != nil && ctx.Err() != nil {
			return err
		}

		if deleted = err == nil; !deleted {
			c.log.Warn("the runtime cannot delete a container; it is taken apart",
				"container", id, "err", err)
		}
	}

	// One that we do not hold may be on its way nevertheless: a server that was killed had asked for it.
	if err := c.simple(ctx, wire.Message{Op: wire.OpForget, ID: id, Deleted: deleted}, nil); err != nil {
		return err
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	if h := c.held[id]; h != nil {
		h.release()
		delete(c.held, id)
	}

	return nil
}

// Update changes the resources of a live container.
func (c *Client) Update(ctx context.Context, id string, resources *specs.LinuxResources) error {
	h, err := c.lookup(id)
	if err != nil {
		return err
	}
	return c.runner.Update(ctx, h.status.Runtime, id, resources)
}

// ReopenLog makes the monitor open the container's log path anew, after it was renamed by a log rotation.
func (c *Client) ReopenLog(ctx context.Context, id string) error {
	return c.simple(ctx, wire.Message{Op: wire.OpReopenLog, ID: id}, nil)
}

// Resize sets the size of the container's terminal.
func (c *Client) Resize(id string, width, height uint16) error {
	c.mu.Lock()
	defer c.mu.Unlock()

	h := c.held[id]
	switch {
	case h == nil:
		return notFound(id)
	case h.exited():
		return fmt.Errorf("resize terminal of container %s: %w", id, ErrExited)
	case h.tty < 0:
		return fmt.Errorf("container %s has no terminal", id)
	}

	return setWinsize(h.tty, width, height)
}

// Wait waits for the container's end.
func (c *Client) Wait(ctx context.Context, id string) (Exit, error) {
	h, err := c.lookup(id)
	if err != nil {
		return Exit{}, err
	}

	select {
	case <-h.done:
		c.mu.Lock()
		defer c.mu.Unlock()

		return *h.status.Exit, nil

	case <-ctx.Done():
		return Exit{}, context.Cause(ctx)
	}
}

// Lives reports whether a container was created and, as far as the monitor has told, has not ended.
func (c *Client) Lives(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.held[id]
	return h != nil && !h.exited()
}

// Started reports whether the user's program of a created container was let run. A start that an earlier
// process of ours asked for, which may still be under way, is waited for.
func (c *Client) Started(ctx context.Context, id string) (bool, error) {
	h, err := c.lookup(id)
	if err != nil {
		return false, err
	}

	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()

	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		calls, err := ociruntime.Processes("start", id)
		if err != nil {
			return false, fmt.Errorf("look for a start of container %s: %w", id, err)
		}
		if len(calls) == 0 {
			break
		}

		select {
		case <-ctx.Done():
			return false, fmt.Errorf("processes %v, which start container %s, do not end", calls, id)
		case <-time.After(pause):
		}
	}

	state, err := c.runner.State(ctx, h.status.Runtime, id)
	return err == nil && state.Status == specs.StateRunning, err
}

// List tells what the monitor knew when it was last heard of: every container that was created and not
// deleted, in no order.
func (c *Client) List() []Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Status, 0, len(c.held))
	for _, h := range c.held {
		all = append(all, h.status)
	}
	return all
}

func setWinsize(tty int, width, height uint16) error {
	if err := unix.IoctlSetWinsize(tty, unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		return fmt.Errorf("set terminal size: %w", err)
	}
	return nil
}

func notFound(id string) error { return fmt.Errorf("container %s: %w", id, ErrNotFound) }

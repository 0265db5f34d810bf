package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/pidfd"
	"github.com/trivet-node/trivet/cri/monitor/wire"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/internal/retry"
)

// Client is a connection to the monitor that repairs itself: when the monitor dies, Client starts it again,
// hands it the descriptors that it has lost, and goes on. Its methods may be called concurrently.
type Client struct {
	cfg        Config
	runner     ociruntime.Runner
	containers *containers
	keeper     *keeper
	cancel     context.CancelFunc
}

// Connect connects to the monitor, starts it if nobody answers, and takes a second set of descriptors of all
// containers that the monitor knows. It returns when the first connection is up; from then on a connection is
// kept until Close. Exits that happened before are already waiting in Exits.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}

	c := &Client{cfg: cfg, containers: newContainers()}
	c.keeper = newKeeper(cfg, c.containers)

	link, err := c.keeper.openFirst(ctx)
	if err != nil {
		c.containers.close()
		return nil, err
	}

	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.cancel = cancel
	go c.keeper.run(life, link)
	return c, nil
}

// Close closes the connection and all descriptors, and ends Exits. Monitor and containers go on.
func (c *Client) Close() error {
	c.cancel()
	<-c.keeper.ended
	c.containers.close()
	return nil
}

// Exits returns the channel of exits: each container's, once for each Client. Close closes it.
func (c *Client) Exits() <-chan Exit { return c.containers.exits.out }

// Dismissed returns a channel that is closed when the monitor was asked to end for good: it is not started
// again.
func (c *Client) Dismissed() <-chan struct{} { return c.keeper.dismissed }

// Connected reports whether there is a connection to the monitor.
func (c *Client) Connected() bool {
	c.keeper.mu.Lock()
	defer c.keeper.mu.Unlock()
	return c.keeper.link != nil
}

// Connections returns how many connections there have been. More than one means that the monitor has ended
// and was started again.
func (c *Client) Connections() int64 {
	c.keeper.mu.Lock()
	defer c.keeper.mu.Unlock()
	return c.keeper.opened
}

// Create makes a container, whose program waits for Start, and returns the PID of its first process. On an
// error nothing of it is left. Once asked for, a creation is waited for even if ctx ends (the monitor bounds
// it), so that the caller always knows what there is. If the monitor is killed meanwhile, the next one undoes
// what was made, and Create asks it again.
func (c *Client) Create(ctx context.Context, container Container) (pid int, err error) {
	request := wire.Message{Op: wire.OpCreate, ID: container.ID, Container: &container}
	for {
		l, err := c.keeper.connected(ctx)
		if err != nil {
			return 0, err
		}

		m, files, err := l.call(context.WithoutCancel(ctx), request, nil)
		files.Close()
		if err == nil {
			return m.Status.Pid, nil
		}
		if !errors.Is(err, errLost) {
			return 0, err
		}

		// It may have been made, and only the answer was lost.
		if _, err := c.keeper.connected(ctx); err != nil {
			return 0, err
		}
		if made, err := c.containers.find(container.ID); err == nil {
			return made.status.Pid, nil
		}
	}
}

// startLimit bounds what a runtime takes to let a program run that is all prepared, or to change its limits.
const startLimit = 2 * time.Minute

// Start starts the user's program of a created container. A program that runs already is success, because a
// caller that was killed may have started it. Once asked for, a start is carried out even if ctx ends: a
// runtime that is killed may have let the program run already.
func (c *Client) Start(ctx context.Context, id string) error {
	h, err := c.containers.find(id)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startLimit)
	defer cancel()

	err = c.runner.Start(ctx, h.status.Runtime, id)
	if err == nil {
		return nil
	}

	state, stateErr := c.runner.State(ctx, h.status.Runtime, id)
	if stateErr == nil && state.Status == specs.StateRunning {
		return nil
	}

	return err
}

// Started reports whether the program of a created container was started. It waits for a start that an
// earlier process asked for and that may still be under way.
func (c *Client) Started(ctx context.Context, id string) (bool, error) {
	h, err := c.containers.find(id)
	if err != nil {
		return false, err
	}

	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()

	if err := await(ctx, h.status.Runtime, "start", id); err != nil {
		return false, err
	}

	state, err := c.runner.State(ctx, h.status.Runtime, id)
	return err == nil && state.Status == specs.StateRunning, err
}

// AwaitUpdates waits until no runtime works on an update of the container that an earlier process asked for.
func (c *Client) AwaitUpdates(ctx context.Context, id string) error {
	h, err := c.containers.find(id)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	return await(ctx, h.status.Runtime, "update", id)
}

// await waits until no runtime works on a verb for the container.
func await(ctx context.Context, runtime ociruntime.Runtime, verb, id string) error {
	var working []int
	for range (retry.Backoff{First: time.Millisecond, Max: 50 * time.Millisecond}).Attempts(ctx) {
		var err error
		working, err = runtime.Processes(verb, id)
		if err != nil {
			return fmt.Errorf("look for a runtime that works on container %s: %w", id, err)
		}
		if len(working) == 0 {
			return nil
		}
	}

	return fmt.Errorf("processes %v of OCI %s of container %s do not end", working, verb, id)
}

// ErrUnnoticed is returned for a signal that was not sent, because the program would not notice it yet.
var ErrUnnoticed = errors.New("its process does not notice this signal yet")

// Kill sends a signal to the container's first process. It is not an error if the container has exited. A
// signal that would be lost now (see pidfd.Notices) is ErrUnnoticed.
func (c *Client) Kill(id string, signal unix.Signal) error {
	return c.containers.with(id, func(h *container) error {
		if h.exited() {
			return nil
		}
		if h.pidfd < 0 {
			return fmt.Errorf("signal container %s: its process is not held", id)
		}

		// What cannot be looked at has ended, or is about to.
		if notices, err := pidfd.Notices(h.status.Pid, signal); err == nil && !notices {
			return fmt.Errorf("signal container %s: %w", id, ErrUnnoticed)
		}

		err := unix.PidfdSendSignal(h.pidfd, signal, nil, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal container %s: %w", id, err)
		}

		return nil
	})
}

// Delete kills what is left of the container and removes the runtime's and the monitor's state of it. The CRI
// log stays. A container that is not there is success.
func (c *Client) Delete(ctx context.Context, id string) error {
	deleted := false
	if h, err := c.containers.find(id); err == nil {
		deleted, err = c.deleteByRuntime(ctx, h)
		if err != nil {
			return fmt.Errorf("delete container %s: %w", id, err)
		}
	}

	// The monitor is asked even about a container that it has not announced: a server that was killed may
	// have asked for one that is being made.
	if err := c.keeper.request(ctx, wire.Message{Op: wire.OpForget, ID: id, Deleted: deleted}); err != nil {
		return err
	}

	if c.cfg.Deleted != nil {
		if err := c.cfg.Deleted(ctx, id); err != nil {
			return err
		}
	}

	c.containers.remove(id)
	return nil
}

// deleteByRuntime kills a container and has the runtime delete it. If the runtime cannot, deleted is false,
// and the monitor has to remove the container.
func (c *Client) deleteByRuntime(ctx context.Context, h *container) (deleted bool, err error) {
	if err := c.killAndWait(ctx, h); err != nil {
		return false, err
	}

	id := h.status.ID
	err = c.runner.Delete(ctx, h.status.Runtime, id)
	if err != nil && ctx.Err() != nil {
		return false, err
	}

	if err != nil {
		c.cfg.Log.Warn("the runtime cannot delete a container; the monitor removes it",
			"container", id, "err", err)
	}

	return err == nil, nil
}

// endLimit bounds the wait for the end of a container that was killed.
const endLimit = 10 * time.Second

// killAndWait kills the container and waits until all that ran in it has ended. A runtime would kill it, too,
// but crun has systemd stop the scope without waiting: systemd finds processes in it that are about to end,
// waits for them, and in a container on cgroup v1, where no event says that a group is empty, does so for 90
// seconds.
func (c *Client) killAndWait(ctx context.Context, h *container) error {
	err := c.Kill(h.status.ID, unix.SIGKILL)
	if errors.Is(err, ErrNotFound) {
		return nil
	}

	if err != nil {
		c.cfg.Log.Warn("container is not killed before the runtime deletes it",
			"container", h.status.ID, "err", err)
		return nil
	}

	limit := time.NewTimer(endLimit)
	defer limit.Stop()

	select {
	case <-h.done:
	case <-limit.C:
		// It may be in uninterruptible sleep. The runtime makes the next attempt.
	case <-ctx.Done():
		return context.Cause(ctx)
	}

	return nil
}

// Update changes the resources of a live container. Once asked for, it is carried out even if ctx ends: a
// runtime that is killed may have changed some of them.
func (c *Client) Update(ctx context.Context, id string, resources *specs.LinuxResources) error {
	h, err := c.containers.find(id)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startLimit)
	defer cancel()

	return c.runner.Update(ctx, h.status.Runtime, id, resources)
}

// ReopenLog makes the monitor open the container's log path again, after a log rotation has renamed the file.
func (c *Client) ReopenLog(ctx context.Context, id string) error {
	return c.keeper.request(ctx, wire.Message{Op: wire.OpReopenLog, ID: id})
}

// Resize sets the size of the container's terminal, in characters.
func (c *Client) Resize(id string, width, height uint16) error {
	return c.containers.with(id, func(h *container) error {
		if h.exited() {
			return fmt.Errorf("resize terminal of container %s: %w", id, ErrExited)
		}
		if h.tty < 0 {
			return fmt.Errorf("container %s has no terminal", id)
		}
		return setWinsize(h.tty, width, height)
	})
}

func setWinsize(tty int, width, height uint16) error {
	size := &unix.Winsize{Col: width, Row: height}
	if err := unix.IoctlSetWinsize(tty, unix.TIOCSWINSZ, size); err != nil {
		return fmt.Errorf("set terminal size: %w", err)
	}
	return nil
}

// Wait waits for the end of a container.
func (c *Client) Wait(ctx context.Context, id string) (Exit, error) {
	h, err := c.containers.find(id)
	if err != nil {
		return Exit{}, err
	}

	select {
	case <-h.done:
		return *h.status.Exit, nil
	case <-ctx.Done():
		return Exit{}, context.Cause(ctx)
	}
}

// Lives reports whether a container was created and, as far as this client has heard, has not ended.
func (c *Client) Lives(id string) bool {
	// A container that is not known does not live.
	lives := false
	_ = c.containers.with(id, func(h *container) error {
		lives = !h.exited()
		return nil
	})
	return lives
}

// List returns every container that was created and not deleted, as far as this client has heard, in no
// order.
func (c *Client) List() []Status { return c.containers.list() }

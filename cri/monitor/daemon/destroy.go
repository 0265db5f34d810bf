package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/internal/retry"
)

// destroyTimeout bounds how long killed processes may take to end.
const destroyTimeout = 10 * time.Second

// kill sends SIGKILL to the container's first process, if it lives.
func (c *container) kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.record.Exit != nil || c.fds.pid < 0 {
		return nil
	}
	if err := unix.PidfdSendSignal(c.fds.pid, unix.SIGKILL, nil, 0); err != nil &&
		!errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// undo removes a container that is not made completely. Its record goes last, so that a kill in between
// leaves it for the next monitor.
func (c *container) undo() error {
	if err := c.destroy(); err != nil {
		return fmt.Errorf("undo container %s: %w", c.id, err)
	}
	c.close()
	return removeDirectory(c.dir)
}

// destroy removes all that a runtime makes of a container, whatever it has made so far. A runtime that was
// killed during a create leaves what its own delete does not find: the process that it forked to do the work
// goes on without it, and an init, its cgroup and the state directory are there before the state is.
func (c *container) destroy() error {
	ctx, cancel := context.WithTimeout(context.Background(), destroyTimeout)
	defer cancel()

	if err := endCreate(ctx, c.record.Runtime, c.id); err != nil {
		return err
	}

	// Nothing may run when the runtime has systemd stop the scope, which would wait for what is in it.
	group := c.record.Cgroup
	if group != "" {
		if err := c.node.cgroups.Kill(ctx, group); err != nil {
			c.node.log.Warn("processes are left to the runtime", "container", c.id, "err", err)
		}
	}

	deleteErr := c.node.delete(c.record.Runtime, c.id)

	if group != "" {
		err := errors.Join(c.node.cgroups.Kill(ctx, group), c.node.cgroups.Remove(ctx, group))
		if err != nil {
			return errors.Join(deleteErr, err)
		}
	}

	if c.record.Runtime.Root == "" {
		return deleteErr
	}

	// No process is left, so the state is only a directory, even one that the runtime cannot read.
	return os.RemoveAll(filepath.Join(c.record.Runtime.Root, c.id))
}

// endCreate kills the processes that still work on the container's creation, until none is found.
func endCreate(ctx context.Context, runtime ociruntime.Runtime, id string) error {
	var working []int
	for range (retry.Backoff{First: time.Millisecond, Max: 50 * time.Millisecond}).Attempts(ctx) {
		var err error
		working, err = runtime.Processes("create", id)
		if err != nil || len(working) == 0 {
			return err
		}

		for _, pid := range working {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill process %d, which creates it: %w", pid, err)
			}
		}
	}

	return fmt.Errorf("processes %v, which create it, do not end", working)
}

// delete has the runtime delete a container. One that the runtime does not know is success.
func (n *node) delete(rt ociruntime.Runtime, id string) error {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(null)

	err = n.call(runtimeCall{
		runtime: rt,
		verb:    "delete",
		id:      id,
		args:    rt.DeleteArgs(id),
		stdio:   [3]int{null, null, null},
	})
	if ociruntime.IsNotFound(err) {
		return nil
	}
	return err
}

// removeDirectory removes a container's directory, the record last.
func removeDirectory(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}

	for _, e := range entries {
		if e.Name() == recordFile {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return os.RemoveAll(dir)
}

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
	"github.com/trivet-node/trivet/internal/durable"
)

// destroyTimeout bounds how long killed processes may take to end.
const destroyTimeout = 10 * time.Second

// forget drops a container. deleted says that the client has had the runtime delete it.
func (d *Daemon) forget(id string, deleted bool) error {
	unlock, err := d.locks.Lock(context.Background(), id)
	if err != nil {
		return err
	}
	defer unlock()

	c, err := d.lookup(id)
	if err != nil {
		return d.discardLeft(id)
	}

	if !deleted {
		if err := d.destroy(c); err != nil {
			return fmt.Errorf("forget container %s: %w", id, err)
		}
	}

	if err := c.kill(); err != nil {
		return fmt.Errorf("forget container %s: %w", id, err)
	}

	select {
	case <-c.ended:
	case <-time.After(destroyTimeout):
		return fmt.Errorf("forget container %s: it still runs %s after SIGKILL", id, destroyTimeout)
	}

	d.mu.Lock()

	// should its files stay, the next forget goes by them
	delete(d.containers, id)
	d.mu.Unlock()
	c.close()
	if err := c.remove(); err != nil {
		return fmt.Errorf("forget container %s: %w", id, err)
	}

	return nil
}

// discardLeft tries again what failed when the container was forgotten or its creation undone.
func (d *Daemon) discardLeft(id string) error {
	if !durable.ValidName(id) {
		// never made
		return nil
	}

	r, err := d.readRecord(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("forget container %s: %w", id, err)
	}

	return d.discard(d.newContainer(r))
}

// discard undoes a container that is half made. The record goes last, so that a kill in between leaves
// something to go by.
func (d *Daemon) discard(c *container) error {
	if err := d.destroy(c); err != nil {
		return fmt.Errorf("undo container %s: %w", c.id, err)
	}
	c.close()
	return c.remove()
}

// destroy takes back all that a runtime makes of a container, however far it came. A runtime that was killed
// in the middle of "create" leaves what its own "delete" does not find: the process that it forked to do the
// work goes on without it, and an init, its cgroup and the state directory are there before the state is.
func (d *Daemon) destroy(c *container) error {
	ctx, cancel := context.WithTimeout(context.Background(), destroyTimeout)
	defer cancel()

	if err := endCreate(ctx, c.id); err != nil {
		return err
	}

	deleted := d.runtimeDelete(c)
	if c.record.Cgroup != "" {
		if err := errors.Join(d.cgroups.Kill(ctx, c.record.Cgroup), d.cgroups.Remove(ctx, c.record.Cgroup)); err != nil {
			return errors.Join(deleted, err)
		}
	}

	if c.record.Runtime.Root == "" {
		return deleted
	}

	// Nothing lives any more, so the state is only a directory, also one that the runtime cannot read.
	return os.RemoveAll(filepath.Join(c.record.Runtime.Root, c.id))
}

// endCreate kills whoever still works on the container's creation, until a look finds nobody.
func endCreate(ctx context.Context, id string) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		pids, err := ociruntime.Processes("create", id)
		if err != nil || len(pids) == 0 {
			return err
		}

		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill process %d, which creates it: %w", pid, err)
			}
		}

		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v, which create it, do not end", pids)
		case <-time.After(pause):
		}
	}
}

// runtimeDelete has the runtime delete the container. What is not there is success.
func (d *Daemon) runtimeDelete(c *container) error {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(null)

	rt := c.record.Runtime
	err = d.reaper.do(call{
		runtime: rt,
		verb:    "delete",
		id:      c.id,
		args:    rt.DeleteArgs(c.id),
		stdio:   [3]int{null, null, null},
	})
	if ociruntime.IsNotFound(err) {
		return nil
	}

	return err
}

func (c *container) kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.record.Exit != nil || c.pidfd < 0 {
		return nil
	}
	if err := unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// remove deletes the directory, the record last.
func (c *container) remove() error {
	entries, err := os.ReadDir(c.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}

	for _, e := range entries {
		if e.Name() == "record.json" {
			continue
		}
		if err := os.Remove(c.path(e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}

	return os.RemoveAll(c.dir)
}

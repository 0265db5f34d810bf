package seat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/release/installer/pods"
)

// revive has trivet-cri answer, which may need a start. The error is why it does not.
func (r Runtime) revive(ctx context.Context, ours pods.Runtime) error {
	if r.answers(ctx, ours, min(deadLimit, r.startLimit())) == nil {
		return nil
	}
	r.Log.Warn("trivet-cri does not answer and is started again")
	if err := r.Units.RestartSoon(ctx, criUnit); err != nil {
		return err
	}
	return r.answers(ctx, ours, r.startLimit())
}

// empty takes all pods away from a runtime. A sandbox that does not go is no reason to stop: none of its
// containers runs.
func (r Runtime) empty(ctx context.Context, from pods.Runtime) error {
	limited, cancel := context.WithTimeout(ctx, emptyLimit)
	defer cancel()
	left := from.RemoveAll(limited, stopGrace)

	glance, cancel := context.WithTimeout(ctx, deadLimit)
	defer cancel()
	running, err := from.Running(glance)
	switch {
	case err != nil:
		return errors.Join(left, err)
	case len(running) > 0:
		return errors.Join(left, fmt.Errorf("at %s %d containers run, of them %s",
			from.Endpoint, len(running), running[0]))
	case left != nil:
		r.Log.Warn("sandboxes are left in a runtime", "endpoint", from.Endpoint, "err", left)
	}
	return nil
}

// clear is empty for the runtime that is given up: what it cannot end, or is dead to end, is killed.
func (r Runtime) clear(ctx context.Context, from pods.Runtime, dead error) error {
	why := dead
	if why == nil {
		why = r.empty(ctx, from)
	}
	if why == nil {
		return nil
	}

	r.Log.Warn("the processes of all pods are killed", "err", why)
	limited, cancel := context.WithTimeout(ctx, r.startLimit())
	defer cancel()
	if err := r.Pods.Kill(limited); err != nil {
		return errors.Join(why, err)
	}
	return nil
}

const (
	// deadLimit is after how long a runtime that is asked for its pods is taken for one that needs a start.
	deadLimit = 5 * time.Second

	// emptyLimit bounds how long all pods take to go.
	emptyLimit = time.Minute
)

// takeAway removes trivet-cri, its monitor, and what they keep.
func (r Runtime) takeAway(ctx context.Context) error {
	if err := r.unused(ctx); err != nil {
		return err
	}
	exists, err := r.Units.Exists(ctx, criUnit)
	if err != nil {
		return err
	}
	if exists {
		if err := errors.Join(r.Units.Disable(ctx, criUnit), r.Units.Stop(ctx, criUnit)); err != nil {
			return err
		}
		r.shutdown(ctx)
	}

	err = r.restore(crictlConfig, ctrLink, criConfig, criUnitPath, criProgram, monitorPath)
	if err := errors.Join(err, r.Units.Reload(ctx)); err != nil {
		return err
	}

	err = r.removeAll(criStore+"/*", "/run/trivet/cri*", "/run/trivet/monitor*",
		"/run/trivet/metrics/trivet-cri.sock")
	if err != nil {
		return err
	}

	// Others may have something there, or the administrator a disk.
	os.Remove(r.Root + filepath.Dir(criConfig))
	_ = unix.Rmdir(r.Root + criStore)

	store, err := memory[before](r.Host)
	if err != nil {
		return err
	}
	return errors.Join(store.Delete(runningCRI), store.Delete(beforeRuntime))
}

// unused refuses to take trivet-cri away, and what it knows of its containers, while one of them lives.
func (r Runtime) unused(ctx context.Context) error {
	glance, cancel := context.WithTimeout(ctx, deadLimit)
	defer cancel()
	if ids, err := r.at(criEndpoint).Running(glance); err == nil && len(ids) > 0 {
		return fmt.Errorf("trivet-cri has %d containers that run, of them %s", len(ids), ids[0])
	}

	// It may be dead, or may have lost them.
	pids, err := r.Pods.Using(criStore)
	if err == nil && len(pids) > 0 {
		err = fmt.Errorf("%d processes are in containers of trivet-cri, of them %d", len(pids), pids[0])
	}
	return err
}

// shutdown ends trivet-monitor, which lives on when its service is stopped. It is in the service's group.
func (r Runtime) shutdown(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, r.startLimit())
	defer cancel()
	out, err := exec.CommandContext(limited, r.Root+criProgram, "--shutdown").CombinedOutput()
	if err != nil {
		r.Log.Warn("trivet-monitor is killed", "err", err, "output", strings.TrimSpace(string(out)))
		if err := r.Units.Kill(ctx, criUnit); err != nil {
			r.Log.Warn("cannot kill what is left of trivet-cri", "err", err)
		}
	}
}

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/retry"
)

// Pauses between attempts to empty or remove a group: the kernel has no event for a v1 group that is empty.
const (
	firstPause = 500 * time.Microsecond
	lastPause  = 20 * time.Millisecond
)

// Kill sends SIGKILL to all processes in a group and below until none is left or ctx ends. On v2 the kernel
// does it in one step. A group that is not there is a success.
func (h *Host) Kill(ctx context.Context, group string) error {
	if h.V2 {
		err := write(h.Dir("", group), "cgroup.kill", "1")
		if errors.Is(err, fs.ErrNotExist) && !h.Exists(group) {
			return nil
		}

		// Kernels before 5.14 do not have the file.
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}

	return untilDone(ctx, func() (bool, error) {
		pids, err := h.Procs(group)
		if err != nil {
			return false, err
		}

		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return false, fmt.Errorf("kill process %d of cgroup %s: %w", pid, group, err)
			}
		}

		return len(pids) == 0, nil
	})
}

// Remove removes a group and all groups below it in every hierarchy. It does not kill: while processes live
// it tries again until ctx ends (a process leaves its group a moment after its exit is reported). What is not
// there is a success.
func (h *Host) Remove(ctx context.Context, group string) error {
	if group = filepath.Join("/", group); group == "/" {
		return errors.New("refusing to remove the root cgroup")
	}

	return untilDone(ctx, func() (bool, error) {
		gone := true
		for _, hierarchy := range h.hierarchies {
			ok, err := removeTree(filepath.Join(hierarchy, group))
			if err != nil {
				return false, err
			}
			if !ok {
				gone = false
			}
		}

		return gone, nil
	})
}

// removeTree removes a directory and those below it. It returns false when one of them is still busy.
func removeTree(dir string) (removed bool, err error) {
	err = unix.Rmdir(dir)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return true, nil
	case !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY):
		return false, fmt.Errorf("remove cgroup %s: %w", dir, err)
	}

	entries, err := os.ReadDir(dir)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist), nil
	}

	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if ok, err := removeTree(filepath.Join(dir, e.Name())); !ok || err != nil {
			return false, err
		}
	}

	return unix.Rmdir(dir) == nil, nil
}

// untilDone calls attempt until it is done, fails, or ctx ends.
func untilDone(ctx context.Context, attempt func() (done bool, err error)) error {
	for range (retry.Backoff{First: firstPause, Max: lastPause}).Attempts(ctx) {
		if done, err := attempt(); done || err != nil {
			return err
		}
	}
	return fmt.Errorf("cgroup is still busy: %w", context.Cause(ctx))
}

package nfsvolume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// inFlight are the unmounts that the kernel has not answered: one thread waits for each of them, however
// often the unmount is repeated.
type inFlight struct {
	mu   sync.Mutex
	dirs map[string]chan error
}

// errNoAnswer says that the kernel still waits, for the server.
var errNoAnswer = errors.New("the server does not answer")

// attempts are the ways to unmount, the gentlest first, each with the time that it gets.
var attempts = []struct {
	flags int
	wait  time.Duration
}{
	// The server takes what was not written yet.
	{0, 10 * time.Second},

	// What was not written yet is lost.
	{unix.MNT_FORCE, 2 * time.Second},

	// The mount is only taken out of sight.
	{unix.MNT_DETACH, 2 * time.Second},
}

// Unmount unmounts dir and removes the directory. A server that does not answer gets some time, then what it
// was to write is lost, and at last the mount is only taken out of sight. Nothing is lost of a mount that is
// merely in use by a process of the node.
func (m *Mounter) Unmount(ctx context.Context, dir string) error {
	var last error
	for _, attempt := range attempts {
		there, err := mounted(dir)
		if err != nil {
			return err
		}
		if !there {
			break
		}

		// While the server answers, a forced unmount would only make the writes of other mounts fail.
		if attempt.flags == unix.MNT_FORCE && !errors.Is(last, errNoAnswer) {
			continue
		}

		last = m.unmounts.start(ctx, dir, attempt.flags, attempt.wait)
		if ctx.Err() != nil {
			return fmt.Errorf("unmount %s: %w", dir, errors.Join(ctx.Err(), last))
		}
	}

	if there, err := mounted(dir); there || err != nil {
		return fmt.Errorf("unmount %s: %w", dir, errors.Join(errors.New("it is still mounted"), last, err))
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", dir, err)
	}

	return nil
}

// start calls umount2(2) and waits for its answer for a while. It runs beside an unmount with other flags
// that hangs: a forced one makes that fail.
func (f *inFlight) start(ctx context.Context, dir string, flags int, wait time.Duration) error {
	answer := f.begin(dir, flags)

	timer := time.NewTimer(wait)
	defer timer.Stop()

	select {
	case err := <-answer:
		return err
	case <-timer.C:
		return errNoAnswer
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin returns the channel on which the answer comes, of an unmount that hangs already or of a new one.
func (f *inFlight) begin(dir string, flags int) <-chan error {
	f.mu.Lock()
	defer f.mu.Unlock()

	key := fmt.Sprint(flags, dir)
	if answer := f.dirs[key]; answer != nil {
		return answer
	}
	if f.dirs == nil {
		f.dirs = map[string]chan error{}
	}

	answer := make(chan error, 1)
	f.dirs[key] = answer
	go func() {
		err := unix.Unmount(dir, flags|unix.UMOUNT_NOFOLLOW)

		f.mu.Lock()
		delete(f.dirs, key)
		f.mu.Unlock()
		answer <- err
		close(answer)
	}()

	return answer
}

// Teardown unmounts all NFS volumes of a pod, whose volumes are in dir.
func (m *Mounter) Teardown(ctx context.Context, dir string) error {
	base := filepath.Join(dir, Plugin)

	// Reading the names alone does not look at the mounts, which would wait for their servers.
	entries, err := os.ReadDir(base)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list NFS volumes: %w", err)
	}

	errs := make([]error, len(entries))
	var running sync.WaitGroup
	for i, e := range entries {
		running.Go(func() { errs[i] = m.Unmount(ctx, filepath.Join(base, e.Name())) })
	}

	running.Wait()
	return errors.Join(errs...)
}

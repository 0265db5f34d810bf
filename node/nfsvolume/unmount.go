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

// How long an unmount waits for the server to take what was not written yet, and how long for each way
// without it.
const (
	patience = 10 * time.Second
	forced   = 2 * time.Second
)

// inFlight keeps unmounts that the kernel has not answered: there is one thread per mount that waits, however
// often it is tried.
type inFlight struct {
	mu   sync.Mutex
	dirs map[string]chan error
}

// errNoAnswer says that the kernel still waits, for the server.
var errNoAnswer = errors.New("the server does not answer")

// Unmount unmounts dir and removes the directory. A server that does not answer is given some time, then what
// it was to write is lost, and at last the mount is only taken out of sight. Of a mount that is merely in
// use, by a process of the node, nothing is lost.
func (m *Mounter) Unmount(ctx context.Context, dir string) error {
	var last error
	for _, way := range []struct {
		flags int
		wait  time.Duration
	}{
		{0, patience},
		{unix.MNT_FORCE, forced},
		{unix.MNT_DETACH, forced},
	} {
		there, err := mounted(dir)
		if err != nil {
			return err
		}
		if !there {
			break
		}

		if way.flags == unix.MNT_FORCE && !errors.Is(last, errNoAnswer) {
			// it would make the writes of others fail
			continue
		}

		last = m.unmounts.start(ctx, dir, way.flags, way.wait)
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

// start calls umount2(2) and waits for it for a while. A forced one goes beside one that hangs, which it
// makes fail.
func (f *inFlight) start(ctx context.Context, dir string, flags int, wait time.Duration) error {
	key := fmt.Sprint(flags, dir)
	f.mu.Lock()
	answer := f.dirs[key]
	if answer == nil {
		answer = make(chan error, 1)
		if f.dirs == nil {
			f.dirs = map[string]chan error{}
		}

		f.dirs[key] = answer
		go func() {
			err := unix.Unmount(dir, flags|unix.UMOUNT_NOFOLLOW)
			f.mu.Lock()
			delete(f.dirs, key)
			f.mu.Unlock()
			answer <- err
			close(answer)
		}()
	}

	f.mu.Unlock()

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

// Teardown unmounts all NFS volumes of a pod, whose volumes are in dir.
func (m *Mounter) Teardown(ctx context.Context, dir string) error {
	base := filepath.Join(dir, Plugin)

	// asks for no type, which would ask the servers
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

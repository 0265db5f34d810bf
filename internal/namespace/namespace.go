// Package namespace makes, pins and enters Linux namespaces (namespaces(7)). It is the only place that locks
// threads: a thread that has changed a namespace is not used for other goroutines, it ends with its own.
package namespace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Kind is a namespace by its name under /proc/PID/ns.
type Kind string

// The kinds of namespaces.
const (
	Net    Kind = "net"
	IPC    Kind = "ipc"
	UTS    Kind = "uts"
	Mount  Kind = "mnt"
	PID    Kind = "pid"
	User   Kind = "user"
	Cgroup Kind = "cgroup"
)

func (k Kind) cloneFlag() int {
	switch k {
	case Net:
		return unix.CLONE_NEWNET
	case IPC:
		return unix.CLONE_NEWIPC
	case UTS:
		return unix.CLONE_NEWUTS
	case Mount:
		return unix.CLONE_NEWNS
	case PID:
		return unix.CLONE_NEWPID
	case User:
		return unix.CLONE_NEWUSER
	case Cgroup:
		return unix.CLONE_NEWCGROUP
	}

	return 0
}

// Create makes a new namespace of each kind in pins on one thread, calls setup there, and pins each by a bind
// mount on the file pins[kind], which is created. Setup is the place to set a host name or sysctls, and may
// be nil. On an error nothing stays pinned.
func Create(pins map[Kind]string, setup func() error) error {
	flags := 0
	for k, path := range pins {
		if k.cloneFlag() == 0 {
			return fmt.Errorf("unknown namespace kind %q", k)
		}

		flags |= k.cloneFlag()
		if err := touch(path); err != nil {
			return err
		}
	}

	// The thread is not used again, as it stays in the new namespaces. They live on by their pins.
	err := onThrowawayThread(func() error {
		if err := unix.Unshare(flags); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}

		if setup != nil {
			if err := setup(); err != nil {
				return err
			}
		}

		for k, path := range pins {
			own := "/proc/thread-self/ns/" + string(k)
			if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("pin %s namespace on %s: %w", k, path, err)
			}
		}

		return nil
	})
	if err != nil {
		for _, path := range pins {
			err = errors.Join(err, Unpin(path))
		}
	}

	return err
}

// Pin pins a namespace of a live process by a bind mount on the file path, which is created. Unpin undoes it.
func Pin(kind Kind, pid int, path string) error {
	if err := touch(path); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin %s namespace of process %d on %s: %w", kind, pid, path, err)
	}
	return nil
}

// touch makes a file to mount on, and its directory.
func touch(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	return f.Close()
}

// Unpin unmounts and removes a pin. One that is not there is a success.
func Unpin(path string) error {
	// A process that was killed and started again may have mounted it twice.
	var err error
	for err == nil {
		err = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}

	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unpin %s: %w", path, err)
	}

	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}

	return nil
}

// Pinned reports whether a namespace is pinned on path, rather than that being an empty file or not there.
func Pinned(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// Do runs f on a thread that has entered the namespaces of these files, in order. The thread ends afterwards.
// f must not start goroutines that rely on the namespaces.
func Do(f func() error, paths ...string) error {
	return onThrowawayThread(func() error {
		for _, p := range paths {
			fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open namespace %s: %w", p, err)
			}

			err = unix.Setns(fd, 0)
			unix.Close(fd)
			if err != nil {
				return fmt.Errorf("enter namespace %s: %w", p, err)
			}
		}

		return f()
	})
}

// Visit runs f on the calling thread in the network namespace of this file, and brings the thread back. It is
// cheaper than Do, and meant for programs that end soon: a thread that cannot be brought back stays locked
// and is not used again. f must not start goroutines that rely on the namespace.
func Visit(f func() error, path string) error {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}

	defer unix.Close(home)

	there, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Setns(there, unix.CLONE_NEWNET)
		unix.Close(there)
	}

	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}

	err = f()
	if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("return from network namespace %s: %w", path, back))
	}

	runtime.UnlockOSThread()
	return err
}

// onThrowawayThread runs f on a goroutine that keeps its thread locked when it ends, which makes Go's runtime
// end the thread. A mount namespace can only be entered by a thread that shares no fs attributes (setns(2)),
// so that sharing them is always ended first. Where f ends its goroutine, as FailNow and SkipNow of a test
// do, the caller's ends, too, which would wait forever.
func onThrowawayThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		defer close(done)

		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// Go's runtime never ends the first thread of the process: a locked goroutine that ends on it
			// leaves it asleep in the namespace that it has entered, which would live as long as the process.
			// While this goroutine waits here, locked to that thread, no other gets it.
			defer runtime.UnlockOSThread()
			done <- onThrowawayThread(f)
			return
		}

		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- fmt.Errorf("unshare fs attributes: %w", err)
			return
		}

		done <- f()
	}()

	err, returned := <-done
	if !returned {
		runtime.Goexit()
	}
	return err
}

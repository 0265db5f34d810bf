package namespace

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Users is a user namespace: where it is pinned, and whom its IDs stand for. Those of users and of groups are
// the same: from 0 to Length-1 inside, from First on outside.
type Users struct {
	Path   string
	First  uint32
	Length uint32
}

// Outside returns the ID outside of one inside; ok is false for one that the namespace does not have.
func (u Users) Outside(inside uint32) (outside uint32, ok bool) {
	return u.First + inside, inside < u.Length
}

// Check returns an error for IDs that no namespace can have, or that would give it the root of outside.
func (u Users) Check() error {
	switch {
	case u.Length == 0:
		return errors.New("no IDs are mapped")
	case u.First == 0:
		return errors.New("the root outside would be the root inside")
	case uint64(u.First)+uint64(u.Length) > math.MaxUint32:
		// The last of all IDs means none.
		return fmt.Errorf("%d IDs from %d on are not all below %d", u.Length, u.First, uint32(math.MaxUint32))
	}
	return nil
}

// CreateOwned makes a user namespace and new namespaces of the kinds in pins, which belong to it, and pins
// all of them as Create does. setup runs with the identity of the caller in those of pins: the caller may do
// there what it may do outside. On an error nothing stays pinned.
func CreateOwned(pins map[Kind]string, users Users, setup func() error) error {
	all := map[Kind]string{User: users.Path}
	var entered []string
	for k, path := range pins {
		all[k] = path
		entered = append(entered, path)
	}

	for k, path := range all {
		if k.cloneFlag() == 0 {
			return fmt.Errorf("unknown namespace kind %q", k)
		}
		if err := touch(path); err != nil {
			return err
		}
	}

	err := pinOfChild(all, users)
	if err == nil && setup != nil {
		err = Do(setup, entered...)
	}
	if err != nil {
		for _, path := range all {
			err = errors.Join(err, Unpin(path))
		}
	}

	return err
}

// pinOfChild pins the namespaces of a child that is made for them.
func pinOfChild(pins map[Kind]string, users Users) error {
	flags := 0
	for k := range pins {
		flags |= k.cloneFlag()
	}

	return withChild(flags, users, func(pid int) error {
		for k, path := range pins {
			if err := Pin(k, pid, path); err != nil {
				return err
			}
		}
		return nil
	})
}

// InOwnedMounts runs f in a new mount namespace that belongs to a user namespace, with the identity of the
// caller: what may be mounted there is what users may mount in it. Their path is of no account, and nothing
// stays.
func InOwnedMounts(users Users, f func() error) error {
	return withChild(unix.CLONE_NEWUSER|unix.CLONE_NEWNS, users, func(pid int) error {
		return Do(f, fmt.Sprintf("/proc/%d/ns/mnt", pid))
	})
}

// withChild calls f with a child in new namespaces: the kernel gives a user namespace only to a process of
// one thread (unshare(2)). The child is this very program, stopped by ptrace(2) before its first instruction,
// and killed there.
func withChild(flags int, users Users, f func(pid int) error) error {
	// The thread that starts the child is its tracer, and it dies with it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	ids := []syscall.SysProcIDMap{{HostID: int(users.First), Size: int(users.Length)}}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"namespaces"}, &syscall.ProcAttr{
		Sys: &syscall.SysProcAttr{
			Cloneflags:                 uintptr(flags),
			UidMappings:                ids,
			GidMappings:                ids,
			GidMappingsEnableSetgroups: true,
			Ptrace:                     true,
			Pdeathsig:                  unix.SIGKILL,
		},
	})
	if err != nil {
		return fmt.Errorf("start a process in a user namespace of IDs from %d on: %w", users.First, err)
	}
	defer reap(pid)

	return f(pid)
}

// reap kills a traced child and waits for its end, past the stop that ptrace has made.
func reap(pid int) {
	_ = unix.Kill(pid, unix.SIGKILL)
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(pid, &status, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || status.Exited() || status.Signaled() {
			return
		}
	}
}

// InOwnNet runs f on a thread with a network namespace of its own, which ends with f and what f has open.
func InOwnNet(f func() error) error {
	return onThrowawayThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network: %w", err)
		}
		return f()
	})
}

// InOwnMounts runs f on a thread with a mount namespace of its own, which has all mounts of the caller's and
// ends with f: what f mounts is seen by nobody, and nothing of it can be left. What it has open stays.
func InOwnMounts(f func() error) error {
	return onThrowawayThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare mounts: %w", err)
		}

		// What the caller's namespace unmounts meanwhile goes here, too: its device would be busy otherwise.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return fmt.Errorf("make mounts slaves: %w", err)
		}

		return f()
	})
}

// Package lockfile makes one process the only user of something on disk: a directory of state, the path of a
// socket. The lock is a flock(2) on an open file, so the kernel releases it however the process ends. The
// file itself stays: if it were removed, two processes could lock two files of one name.
package lockfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/retry"
)

// Grace is how long a process that was killed may seem to hold what it held. A child that it had forked, but
// that has not yet executed its program, still has copies of all its descriptors: the kernel drops a lock,
// and refuses connections to a socket, when the last copy is closed.
const Grace = time.Second

// interval is the pause between two tries within Grace. flock(2) can be waited for, but only by a thread that
// nothing but a signal ends.
const interval = 10 * time.Millisecond

// Take locks the file at path, which it creates (0600) where it is missing, until the returned file is closed
// or the process has ended. The descriptor is close-on-exec; one that is handed over an execve takes the lock
// along. While another process holds the lock, Take waits for up to Grace, or until ctx ends.
//
// what names the thing that the lock protects and the flag that chooses it, for the message of the
// *program.CantRunError that Take returns when another process keeps the lock: "data directory
// /var/lib/trivet/csi (--data-dir)".
func Take(ctx context.Context, path, what string) (*os.File, error) {
	fd, err := take(ctx, path, what)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Hold is Take for as long as the process lives.
func Hold(ctx context.Context, path, what string) error {
	// The descriptor is not closed and nothing refers to it: only the end of the process releases the lock.
	_, err := take(ctx, path, what)
	return err
}

func take(ctx context.Context, path, what string) (int, error) {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}

	Await(ctx, func() bool {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		return !errors.Is(err, unix.EWOULDBLOCK)
	})
	if err == nil {
		return fd, nil
	}
	defer unix.Close(fd)

	// The caller has stopped waiting, so it is not the other process that keeps it from starting.
	if ctx.Err() != nil {
		return -1, fmt.Errorf("lock %s: %w", path, context.Cause(ctx))
	}

	if errors.Is(err, unix.EWOULDBLOCK) {
		return -1, &program.CantRunError{
			What: fmt.Sprintf("%s is in use by %s", what, holder(fd)),
			Do:   "stop that process or choose another path",
		}
	}

	return -1, &os.PathError{Op: "flock", Path: path, Err: err}
}

// Await calls free until it reports true, and reports whether it did so before Grace had passed and ctx had
// ended. free is called at least once.
func Await(ctx context.Context, free func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, Grace)
	defer cancel()
	for range retry.Every(ctx, interval) {
		if free() {
			return true
		}
	}
	return false
}

// holder names the process that holds the lock of an open file, as far as the kernel shows it: a process of
// another PID namespace is not listed, and some filesystems number their devices otherwise in proc_locks(5).
func holder(fd int) string {
	const unknown = "another process"

	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return unknown
	}

	id := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)

	locks, err := os.Open("/proc/locks")
	if err != nil {
		return unknown
	}
	defer locks.Close()

	for lines := bufio.NewScanner(locks); lines.Scan(); {
		// "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF"; one that waits has "->" as its second field.
		fields := bytes.Fields(lines.Bytes())
		if len(fields) < 6 || string(fields[1]) != "FLOCK" || string(fields[5]) != id {
			continue
		}

		pid := string(fields[4])
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			return "process " + pid
		}

		return fmt.Sprintf("process %s (%s)", pid, bytes.TrimSpace(name))
	}

	return unknown
}

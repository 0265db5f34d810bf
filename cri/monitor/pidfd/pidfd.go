// Package pidfd watches processes by pidfds (pidfd_open(2)), which never mean another process of the same
// number, and finds out the exit status even of a process that is not a child.
package pidfd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Open returns a close-on-exec, non-blocking pidfd of a process that has not been reaped; ESRCH when there is
// none.
func Open(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("open pidfd of process %d: %w", pid, err)
	}
	return fd, nil
}

// Wait blocks until the process has ended (it may still be a zombie), or until closing is closed: then it
// returns os.ErrClosed. It does not close fd.
func Wait(fd int, closing <-chan struct{}) error {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}

	// The descriptor is non-blocking, so the runtime's poller waits, and not a thread.
	f := os.NewFile(uintptr(own), "pidfd")
	defer f.Close()

	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}

	var failure error
	done := make(chan struct{})
	go func() {
		defer close(done)
		failure = raw.Read(func(fd uintptr) bool { return Ended(int(fd)) })
	}()

	select {
	case <-done:
		return failure
	case <-closing:
		// Closing ends the read.
		f.Close()
		<-done
		return os.ErrClosed
	}
}

// Ended reports whether the process has ended.
func Ended(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}

// ErrUnknown is returned when the exit status cannot be found out: the process was not a child, another
// process has reaped it, and the kernel does not keep the status (before 6.15).
var ErrUnknown = errors.New("exit status is unknown")

// info is struct pidfd_info of linux/pidfd.h, version 0 (64 bytes).
type info struct {
	mask     uint64
	cgroupID uint64
	pid      uint32
	tgid     uint32
	ppid     uint32
	ids      [8]uint32
	exitCode int32
}

const (
	infoExit = 1 << 3 // PIDFD_INFO_EXIT
	// getInfo is PIDFD_GET_INFO: _IOWR(PIDFS_IOCTL_MAGIC 0xFF, 11, struct pidfd_info).
	getInfo = 3<<30 | unsafe.Sizeof(info{})<<16 | 0xFF<<8 | 11
)

// Status returns the wait status of a process that has ended and is not a child. The kernel has it once the
// process was reaped; as long as it is a zombie, /proc does.
func Status(fd, pid int) (unix.WaitStatus, error) {
	// It may be reaped between the two attempts.
	for range 2 {
		i := info{mask: infoExit}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), getInfo, uintptr(unsafe.Pointer(&i)))
		if errno == 0 && i.mask&infoExit != 0 {
			return unix.WaitStatus(i.exitCode), nil
		}
		if status, ok := zombie(pid, fd); ok {
			return status, nil
		}
	}

	return 0, ErrUnknown
}

// zombie reads field 52 (exit_code) of /proc/PID/stat, which holds the wait status of a zombie.
func zombie(pid, fd int) (unix.WaitStatus, bool) {
	fields, err := stat(pid)
	if err != nil || len(fields) < 50 || fields[0] != "Z" {
		return 0, false
	}
	code, err := strconv.Atoi(fields[49])
	// A signal of 0 still reaches a zombie: then it was this process that was read, not a later one of the
	// same number.
	if err != nil || unix.PidfdSendSignal(fd, 0, nil, 0) != nil {
		return 0, false
	}
	return unix.WaitStatus(code), true
}

// StartTime returns when a process started, in clock ticks since boot. With the pid it names a process of
// this boot.
func StartTime(pid int) (uint64, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat is cut short", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// Parent returns the PID of the process' parent.
func Parent(pid int) (int, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/stat is cut short", pid)
	}
	return strconv.Atoi(fields[1])
}

// stat returns the fields of /proc/PID/stat from the third (state) on: the second, the name, may hold blanks
// and brackets.
func stat(pid int) ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	end := strings.LastIndexByte(string(data), ')')
	if end < 0 {
		return nil, fmt.Errorf("/proc/%d/stat has no name", pid)
	}
	return strings.Fields(string(data[end+1:])), nil
}

package testenv

import (
	"errors"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IoctlFaults are ioctls that the kernel refuses, as it does when a disk is full.
type IoctlFaults struct {
	Requests []uint32   // the numbers of those that count
	From     int        // the first of them that is refused, from 0 on, as are all that follow
	Errno    unix.Errno // with which they are
}

// Run has them refused to do, which makes them in its own goroutine, and returns its error. Programs that it
// starts are under the same rule.
func (f IoctlFaults) Run(tb testing.TB, do func() error) error {
	tb.Helper()
	Root(tb)
	var end [2]int
	if err := unix.Pipe2(end[:], unix.O_CLOEXEC); err != nil {
		tb.Fatal(err)
	}
	defer unix.Close(end[0])

	listeners, done := make(chan int, 1), make(chan error, 1)
	go func() {
		defer close(done)
		defer unix.Close(end[1])

		// The thread ends with the goroutine: its filter cannot be taken off again.
		runtime.LockOSThread()
		listener, err := f.filter()
		listeners <- listener
		if err == nil {
			err = do()
		}
		done <- err
	}()

	listener := <-listeners
	if listener < 0 {
		tb.Fatalf("have ioctls refused: %v", <-done)
	}
	defer unix.Close(listener)
	if err := f.judge(listener, end[0]); err != nil {
		tb.Fatalf("have ioctls refused: %v", err)
	}
	return <-done
}

// filter has the kernel ask about the ioctls of this thread that count.
func (f IoctlFaults) filter() (listener int, err error) {
	// In struct seccomp_data.
	const nr, request = 0, 24
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	unless := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: k}
	}
	answer := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
	}

	program := []unix.SockFilter{
		load(nr),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: unix.SYS_IOCTL},
		answer(unix.SECCOMP_RET_ALLOW),
		load(request),
	}
	for _, r := range f.Requests {
		program = append(program, unless(r), answer(unix.SECCOMP_RET_USER_NOTIF))
	}
	program = append(program, answer(unix.SECCOMP_RET_ALLOW))

	arg := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// question and verdict are struct seccomp_notif and seccomp_notif_resp.
type question struct {
	id         uint64
	pid, flags uint32
	_          [64]byte
}

type verdict struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// judge answers the kernel until the other side of end is closed.
func (f IoctlFaults) judge(listener, end int) error {
	for asked := 0; ; asked++ {
		ready := []unix.PollFd{
			{Fd: int32(listener), Events: unix.POLLIN},
			{Fd: int32(end), Events: unix.POLLIN},
		}
		for ready[0].Revents|ready[1].Revents == 0 {
			if _, err := unix.Poll(ready, -1); err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
		}
		if ready[0].Revents&unix.POLLIN == 0 {
			return nil
		}

		var q question
		if err := control(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&q)); err != nil {
			return err
		}
		v := verdict{id: q.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if asked >= f.From {
			v.flags, v.errno = 0, -int32(f.Errno)
		}
		if err := control(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&v)); err != nil {
			return err
		}
	}
}

func control(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

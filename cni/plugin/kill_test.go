package plugin_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// killedAt runs a command and kills it when it is about to make the system call with a number, of those that
// can change anything outside of it: what comes between two of them cannot be told apart from outside. With
// 0 it runs to its end. It returns how many such calls there were. The calling goroutine is locked to its
// thread, which traces the command.
func killedAt(c *exec.Cmd, number int) (calls int, err error) {
	c.SysProcAttr = &unix.SysProcAttr{Ptrace: true}
	if err := c.Start(); err != nil {
		return 0, err
	}
	defer func() { _ = c.Process.Release() }()

	// What the command has started outlives it, and becomes a child of this process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, err
	}

	pid := c.Process.Pid
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		return 0, err
	}

	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(pid, options); err != nil {
		return 0, err
	}
	if err := unix.PtraceSyscall(pid, 0); err != nil {
		return 0, err
	}

	for {
		thread, err := unix.Wait4(-1, &status, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR) || err == nil && !status.Stopped():
			continue
		case errors.Is(err, unix.ECHILD):
			// The command has ended, and so has what it started.
			return calls, nil
		case err != nil:
			return calls, err
		}

		if isChange(thread, status) {
			if calls++; calls == number {
				if err := unix.Kill(pid, unix.SIGKILL); err != nil {
					return calls, err
				}
			}
		}

		// A thread that has been killed meanwhile cannot go on.
		err = unix.PtraceSyscall(thread, int(delivered(status)))
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return calls, fmt.Errorf("continue thread: %w", err)
		}
	}
}

// syscallStop marks the signal of a stop before or after a system call (ptrace(2), PTRACE_O_TRACESYSGOOD).
const syscallStop = unix.SIGTRAP | 0x80

// delivered is the signal that a thread which has stopped gets when it goes on: none of those that are there
// for the tracer.
func delivered(status unix.WaitStatus) unix.Signal {
	switch signal := status.StopSignal(); signal {
	case syscallStop, unix.SIGTRAP, unix.SIGSTOP:
		return 0
	default:
		return signal
	}
}

// callInfo is a struct ptrace_syscall_info, of a stop before a system call.
type callInfo struct {
	Op        uint8
	_         [3]uint8
	Arch      uint32
	_         [2]uint64
	Number    uint64
	Arguments [6]uint64
	_         [4]uint64
}

// isChange reports whether a thread has stopped before a system call that can change anything.
func isChange(thread int, status unix.WaitStatus) bool {
	const entry = 1 // PTRACE_SYSCALL_INFO_ENTRY
	if status.StopSignal() != syscallStop {
		return false
	}

	var info callInfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(thread),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 || info.Op != entry {
		return false
	}
	if info.Number == unix.SYS_OPENAT {
		return info.Arguments[2]&(unix.O_CREAT|unix.O_TRUNC|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0
	}
	return !slices.Contains(harmless, int(info.Number))
}

// harmless are the system calls of plugins that change nothing but the process itself. Locks end with it.
var harmless = []int{
	unix.SYS_READ, unix.SYS_PREAD64, unix.SYS_CLOSE, unix.SYS_LSEEK, unix.SYS_FSTAT, unix.SYS_STATX,
	unix.SYS_STATFS, unix.SYS_READLINKAT, unix.SYS_GETDENTS64, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2,
	unix.SYS_FLOCK, unix.SYS_FCNTL, unix.SYS_PIPE2, unix.SYS_DUP3, unix.SYS_UMASK, unix.SYS_CHDIR,

	unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE, unix.SYS_BRK, unix.SYS_PRCTL,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_SCHED_YIELD,
	unix.SYS_SCHED_GETAFFINITY, unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_TGKILL, unix.SYS_CLONE,
	unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_EXECVE, unix.SYS_WAIT4, unix.SYS_WAITID,
	unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_PRLIMIT64, unix.SYS_UNAME,
	unix.SYS_GETRANDOM, unix.SYS_SETNS, unix.SYS_UNSHARE, unix.SYS_RESTART_SYSCALL,

	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2,
	unix.SYS_SOCKET, unix.SYS_BIND, unix.SYS_GETSOCKNAME, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKOPT,
	unix.SYS_RECVFROM, unix.SYS_RECVMSG,
}

// input is a file with a text, for a command that is traced: nobody copies its standard input.
func input(dir, text string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "stdin-")
	if err != nil {
		return nil, err
	}
	_ = os.Remove(f.Name())
	if _, err := f.WriteString(text); err != nil {
		return nil, err
	}
	_, err = f.Seek(0, 0)
	return f, err
}

// Package reaper waits for the children of a process that is the parent of all containers: those that it
// starts itself, and those that are reparented to it because it is a child subreaper (prctl(2),
// PR_SET_CHILD_SUBREAPER). A process has one Reaper, and nothing else in it may wait for children.
package reaper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/pidfd"
)

// Reaper hands the wait status of each child to the one who asked for it. Its methods may be called
// concurrently.
type Reaper struct {
	// mu guards all below.
	mu         sync.Mutex
	waiting    map[int]func(unix.WaitStatus)
	unclaimed  map[int]unix.WaitStatus // of children that nobody had asked for when they ended
	operations int                     // that may still claim one of unclaimed
}

// New returns a Reaper that reaps once Run is called.
func New() *Reaper {
	return &Reaper{
		waiting:   map[int]func(unix.WaitStatus){},
		unclaimed: map[int]unix.WaitStatus{},
	}
}

// Run reaps until ctx ends.
func (r *Reaper) Run(ctx context.Context) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGCHLD)
	defer signal.Stop(signals)

	for {
		r.reapEnded()

		select {
		case <-signals:
		case <-ctx.Done():
			return
		}
	}
}

// reapEnded reaps all children that have ended. It holds the lock, so that a caller who finds that a process
// is gone finds its status as well.
func (r *Reaper) reapEnded() {
	r.mu.Lock()
	defer r.mu.Unlock()

	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}

		f := r.waiting[pid]
		delete(r.waiting, pid)
		if f != nil {
			f(status)
		} else if r.operations > 0 {
			r.unclaimed[pid] = status
		}
	}
}

// Pause leaves children that end from now on as zombies, until Resume. A program that is executed in this
// process meanwhile finds them.
func (r *Reaper) Pause() { r.mu.Lock() }

// Resume ends a Pause.
func (r *Reaper) Resume() { r.mu.Unlock() }

// KeepUnclaimed keeps the statuses of children that end before they are claimed, until release is called: one
// of them may be the container that is being made.
func (r *Reaper) KeepUnclaimed() (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()

	r.operations++

	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()

		r.operations--
		if r.operations == 0 {
			clear(r.unclaimed)
		}
	})
}

// Claim calls f with the status of the child pid once it has ended. f must not block and must not call the
// Reaper. fd is the child's pidfd, which distinguishes it from an earlier process of the same number; -1 if
// it could not be opened, because the process has ended.
func (r *Reaper) Claim(pid, fd int, f func(unix.WaitStatus)) {
	r.mu.Lock()
	status, ended := r.takeUnclaimed(pid, fd)
	if !ended {
		r.waiting[pid] = f
	}
	r.mu.Unlock()

	if ended {
		f(status)
	}
}

// Unclaimed returns the status of a child that has ended and that nobody has claimed. fd is as in Claim.
func (r *Reaper) Unclaimed(pid, fd int) (status unix.WaitStatus, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.takeUnclaimed(pid, fd)
}

// takeUnclaimed needs r.mu.
func (r *Reaper) takeUnclaimed(pid, fd int) (status unix.WaitStatus, ok bool) {
	status, ok = r.unclaimed[pid]
	if !ok || fd >= 0 && !pidfd.Ended(fd) {
		return 0, false
	}
	delete(r.unclaimed, pid)
	return status, true
}

// Command is a program to run as a child. It is killed when this process dies.
type Command struct {
	Path  string
	Args  []string // the program's name first
	Files []uintptr

	// Started is called with the program's PID as soon as there is one; nil: nothing is.
	Started func(pid int)

	Timeout time.Duration // after which its process group is killed
}

// ErrTimeout is returned for a command that was killed because its time was over.
var ErrTimeout = errors.New("timed out")

// Do runs a command and returns how it ended.
func (r *Reaper) Do(cmd Command) (unix.WaitStatus, error) {
	ended := make(chan unix.WaitStatus, 1)
	pid, err := r.start(cmd, func(s unix.WaitStatus) { ended <- s })
	if err != nil {
		return 0, err
	}
	if cmd.Started != nil {
		cmd.Started(pid)
	}

	timer := time.AfterFunc(cmd.Timeout, func() { unix.Kill(-pid, unix.SIGKILL) })
	status := <-ended
	if inTime := timer.Stop(); !inTime {
		return status, fmt.Errorf("%w after %s", ErrTimeout, cmd.Timeout)
	}

	return status, nil
}

// start starts a child; f is called with its status. The lock keeps the child from being reaped before f is
// known.
func (r *Reaper) start(cmd Command, f func(unix.WaitStatus)) (pid int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()

	pid, err = syscall.ForkExec(cmd.Path, cmd.Args, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=" + os.Getenv("PATH")},
		Files: cmd.Files,
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	})
	if err != nil {
		return 0, err
	}

	r.waiting[pid] = f
	delete(r.unclaimed, pid)
	return pid, nil
}

// SetOOMScore sets oom_score_adj of a process. Where that is refused, the process keeps the lower value that
// it inherited.
func SetOOMScore(pid, value int) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(value)), 0)
}

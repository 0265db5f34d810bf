package daemon

import (
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
	"github.com/trivet-node/trivet/cri/ociruntime"
)

// reaper is the only one in the process that waits for children: the OCI runtimes that it starts, and what
// those leave to us as their subreaper: containers, execs, and anything else, whose status nobody wants.
type reaper struct {
	runner ociruntime.Runner

	mu      sync.Mutex // guards all below
	waiting map[int]func(unix.WaitStatus)
	// ended before anybody knew of them; kept while an operation is on its way
	orphans  map[int]unix.WaitStatus
	inFlight int
}

func newReaper() *reaper {
	return &reaper{waiting: map[int]func(unix.WaitStatus){}, orphans: map[int]unix.WaitStatus{}}
}

// run reaps until stop is closed.
func (r *reaper) run(stop <-chan struct{}) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGCHLD)
	defer signal.Stop(signals)
	for {
		r.sweep()
		select {
		case <-signals:
		case <-stop:
			return
		}
	}
}

func (r *reaper) sweep() {
	// so that whoever finds no process any more finds its status
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
		} else if r.inFlight > 0 {
			r.orphans[pid] = status
		}
	}
}

// pause leaves children that end as zombies, for the next life to reap, until resume.
func (r *reaper) pause()  { r.mu.Lock() }
func (r *reaper) resume() { r.mu.Unlock() }

// begin keeps the statuses of unknown children until end: one of them may be the container that is being
// made.
func (r *reaper) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight++
}

func (r *reaper) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inFlight--; r.inFlight == 0 {
		clear(r.orphans)
	}
}

// claim calls f (which must not block, nor use the reaper) with the status of child pid once it has ended. fd
// is its pidfd, which tells the pid from an earlier use of the number; -1 if it could not be opened, because
// the process has ended.
func (r *reaper) claim(pid, fd int, f func(unix.WaitStatus)) {
	r.mu.Lock()
	status, ended := r.orphans[pid]
	delete(r.orphans, pid)
	if ended = ended && (fd < 0 || pidfd.Ended(fd)); !ended {
		r.waiting[pid] = f
	}
	r.mu.Unlock()
	if ended {
		f(status)
	}
}

// orphan returns the status of a child that ended before anybody claimed it. fd is as in claim.
func (r *reaper) orphan(pid, fd int) (unix.WaitStatus, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	status, ok := r.orphans[pid]
	if ok = ok && (fd < 0 || pidfd.Ended(fd)); ok {
		delete(r.orphans, pid)
	}
	return status, ok
}

// spawn starts a child; f is called with its status. The lock keeps sweep from reaping it before f is known.
func (r *reaper) spawn(path string, args []string, files []uintptr, f func(unix.WaitStatus)) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()

	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=" + os.Getenv("PATH")},
		Files: files,
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	})
	if err == nil {
		r.waiting[pid] = f
		delete(r.orphans, pid)
	}

	return pid, err
}

// setOOMScore gives a process its container's value. Where that is refused, it is lower than ours, which was
// inherited.
func setOOMScore(pid, value int) {
	os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(value)), 0)
}

// runtimeTimeout bounds one call of an OCI runtime.
const runtimeTimeout = 2 * time.Minute

// call is one call of an OCI runtime.
type call struct {
	runtime     ociruntime.Runtime
	verb, id    string
	args        []string
	stdio       [3]int
	extra       []int // descriptors beside its log, from ociruntime.ProcessFd on
	oomScoreAdj *int  // that what it starts inherits; nil: ours
}

// do makes the call. The runtime dies with us.
func (r *reaper) do(c call) error {
	path, err := r.runner.Executable(c.runtime)
	if err != nil {
		return err
	}

	logged, err := c.runtime.NewCall(c.verb, c.id)
	if err != nil {
		return err
	}
	defer logged.Close()

	files := []uintptr{uintptr(c.stdio[0]), uintptr(c.stdio[1]), uintptr(c.stdio[2]), logged.Log().Fd()}
	for _, fd := range c.extra {
		files = append(files, uintptr(fd))
	}

	ended := make(chan unix.WaitStatus, 1)
	pid, err := r.spawn(path, c.args, files, func(s unix.WaitStatus) { ended <- s })
	if err != nil {
		return fmt.Errorf("start OCI runtime %s: %w", c.runtime.Program, err)
	}
	if c.oomScoreAdj != nil {
		setOOMScore(pid, *c.oomScoreAdj)
	}

	timer := time.AfterFunc(runtimeTimeout, func() { unix.Kill(-pid, unix.SIGKILL) })
	status := <-ended
	if inTime := timer.Stop(); !inTime {
		return logged.Abandoned(fmt.Errorf("not done after %s", runtimeTimeout))
	}

	switch {
	case status.Signaled():
		return logged.Failed(fmt.Errorf("killed by %s", unix.SignalName(status.Signal())), nil)
	case status.ExitStatus() != 0:
		return logged.Failed(ociruntime.ExitCode(status.ExitStatus()), nil)
	}

	return nil
}

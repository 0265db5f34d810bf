package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/console"
	"github.com/trivet-node/trivet/cri/monitor/pidfd"
	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// Exec is a process started in a running container. Close it when done.
type Exec struct {
	Pid      int
	Terminal *os.File // master of its terminal, nil without one

	id      string
	pidfd   int
	done    chan struct{} // closed when exit is set
	exit    Exit
	closing chan struct{} // closed by Close
	watched chan struct{} // closed when watch has returned
	close   sync.Once
}

// Exec starts a process in a running container. Once asked for, the start is waited for even if ctx ends;
// then the process is killed. Its parent is the monitor; its descriptors are the caller's.
func (c *Client) Exec(ctx context.Context, cfg ExecConfig) (*Exec, error) {
	h, err := c.lookup(cfg.ID)
	if err != nil {
		return nil, err
	}

	process, err := processFile(cfg)
	if err != nil {
		return nil, err
	}
	defer process.Close()

	l, err := c.connected(ctx)
	if err != nil {
		return nil, err
	}

	request := wire.Exec{Runtime: h.status.Runtime}
	var terminal *console.Socket
	if cfg.Process.Terminal {
		if terminal, err = console.Listen(wire.ConsoleDir(c.cfg.StateDir)); err != nil {
			return nil, fmt.Errorf("exec in container %s: %w", cfg.ID, err)
		}
		defer terminal.Close()

		request.ConsoleSocket = terminal.Path
	}

	files := wire.Files{
		wire.FdProcess: int(process.Fd()),
		wire.FdIn:      fdOf(cfg.Stdin),
		wire.FdOut:     fdOf(cfg.Stdout),
		wire.FdErr:     fdOf(cfg.Stderr),
	}

	for _, name := range []string{wire.FdIn, wire.FdOut, wire.FdErr} {
		// os.Pipe makes both ends non-blocking; a program expects its stdio to block
		if fd := files[name]; fd >= 0 {
			if err := unix.SetNonblock(fd, false); err != nil {
				return nil, fmt.Errorf("exec in container %s: stdio: %w", cfg.ID, err)
			}
		}
	}

	e, number := newExec(cfg.ID), uint64(0)
	m, got, err := l.call(context.WithoutCancel(ctx), wire.Message{
		Op:   wire.OpExec,
		ID:   cfg.ID,
		Exec: &request,
	}, files,
		func(seq uint64) { number = seq; l.mu.Lock(); l.execs[seq] = e; l.mu.Unlock() })
	if err != nil {
		l.mu.Lock()
		delete(l.execs, number)
		l.mu.Unlock()
		got.Close()
		return nil, err
	}

	e.Pid, e.pidfd = m.Pid, got.Take(wire.FdPid)
	got.Close()
	go e.watch(l)
	if terminal != nil {
		if e.Terminal, err = terminal.Receive(ctx); err != nil {
			return nil, errors.Join(
				fmt.Errorf("terminal of exec in container %s: %w", cfg.ID, err),
				e.Kill(),
				e.Close(),
			)
		}
	}

	if ctx.Err() != nil {
		return nil, errors.Join(
			fmt.Errorf("exec in container %s: %w", cfg.ID, context.Cause(ctx)),
			e.Kill(),
			e.Close(),
		)
	}

	return e, nil
}

func newExec(id string) *Exec {
	return &Exec{
		id:      id,
		pidfd:   -1,
		done:    make(chan struct{}),
		closing: make(chan struct{}),
		watched: make(chan struct{}),
	}
}

// execExited notes the end of an exec.
func (l *link) execExited(m wire.Message) {
	l.mu.Lock()
	e := l.execs[m.Seq]
	delete(l.execs, m.Seq)
	l.mu.Unlock()
	if e != nil && m.Exit != nil {
		e.exit = *m.Exit
		close(e.done)
	}
}

// watch finds out the exit status by the pidfd if the monitor dies before the process does.
func (e *Exec) watch(l *link) {
	defer close(e.watched)

	select {
	case <-e.done:
		return
	case <-e.closing:
		return
	case <-l.lost:
	}

	select {
	// both at once
	case <-e.done:
		return
	default:
	}

	e.exit = Exit{ID: e.id, Code: UnknownCode, Unknown: true}
	if e.pidfd >= 0 && pidfd.Wait(e.pidfd, e.closing) == nil {
		if status, err := pidfd.Status(e.pidfd, e.Pid); err == nil {
			e.exit = wire.ExitOf(e.id, status)
		}
	}

	e.exit.At = time.Now()
	close(e.done)
}

// Wait waits for the end of the process.
func (e *Exec) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-e.done:
		return e.exit, nil
	case <-ctx.Done():
		return Exit{}, context.Cause(ctx)
	}
}

// Resize sets the size of the terminal.
func (e *Exec) Resize(width, height uint16) error {
	if e.Terminal == nil {
		return fmt.Errorf("exec in container %s has no terminal", e.id)
	}
	return setWinsize(fdOf(e.Terminal), width, height)
}

// Close gives up the descriptors. The process, if it still runs, goes on (with a terminal it gets SIGHUP),
// and nobody waits for it.
func (e *Exec) Close() error {
	e.close.Do(func() {
		if e.Terminal != nil {
			e.Terminal.Close()
		}

		close(e.closing)

		// which may be using the pidfd
		<-e.watched
		if e.pidfd >= 0 {
			unix.Close(e.pidfd)
			e.pidfd = -1
		}
	})

	return nil
}

// Kill ends the process and all of its descendants. It stops each one before it looks for its children, so
// none can fork away.
func (e *Exec) Kill() error {
	select {
	case <-e.done:
		return nil
	default:
	}

	if e.pidfd < 0 || pidfd.Ended(e.pidfd) {
		return nil
	}

	var tree []int
	collect(e.Pid, &tree)
	for _, pid := range tree[1:] {
		unix.Kill(pid, unix.SIGKILL)
	}

	if err := unix.PidfdSendSignal(e.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill exec in container %s: %w", e.id, err)
	}

	return nil
}

// collect stops pid and gathers it and its descendants.
func collect(pid int, tree *[]int) {
	unix.Kill(pid, unix.SIGSTOP)
	*tree = append(*tree, pid)
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if err != nil {
			continue
		}

		for field := range strings.FieldsSeq(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				collect(child, tree)
			}
		}
	}
}

// processFile writes the OCI process into an anonymous file, so that nothing is left to clean up.
func processFile(cfg ExecConfig) (*os.File, error) {
	data, err := json.Marshal(cfg.Process)
	if err != nil {
		return nil, fmt.Errorf("encode process for container %s: %w", cfg.ID, err)
	}

	fd, err := unix.MemfdCreate("process.json", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory file for a process: %w", err)
	}

	f := os.NewFile(uintptr(fd), "process.json")

	// leaves the offset at the start, for the reader
	if _, err := f.WriteAt(data, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("write process for container %s: %w", cfg.ID, err)
	}

	return f, nil
}

func fdOf(f *os.File) int {
	if f == nil {
		return -1
	}
	raw, err := f.SyscallConn()
	fd := -1
	if err == nil {
		// unlike Fd, this leaves the file non-blocking
		raw.Control(func(n uintptr) { fd = int(n) })
	}
	return fd
}

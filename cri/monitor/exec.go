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

// Exec starts a process in a running container. Its parent is the monitor; its descriptors are the caller's.
// Once asked for, the start is waited for even if ctx ends; the process is killed then.
func (c *Client) Exec(ctx context.Context, cfg ExecConfig) (*Exec, error) {
	h, err := c.containers.find(cfg.ID)
	if err != nil {
		return nil, err
	}

	request := wire.Exec{Runtime: h.status.Runtime}

	var terminal *console.Socket
	if cfg.Process.Terminal {
		terminal, err = console.Listen(wire.ConsoleDir(c.cfg.StateDir))
		if err != nil {
			return nil, fmt.Errorf("exec in container %s: %w", cfg.ID, err)
		}
		defer terminal.Close()

		request.ConsoleSocket = terminal.Path
	}

	e, err := c.startExec(ctx, cfg, request)
	if err != nil {
		return nil, err
	}

	// The process runs from here on. If the caller gets an error, it must not go on.
	if terminal != nil {
		e.Terminal, err = terminal.Receive(ctx)
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("exec in container %s: %w", cfg.ID, err), e.Kill(), e.Close())
	}

	return e, nil
}

// startExec has the monitor start the process.
func (c *Client) startExec(ctx context.Context, cfg ExecConfig, request wire.Exec) (*Exec, error) {
	process, err := processFile(cfg)
	if err != nil {
		return nil, err
	}
	defer process.Close()

	files := wire.Files{wire.FdProcess: int(process.Fd())}
	if err := addStdio(files, cfg); err != nil {
		return nil, fmt.Errorf("exec in container %s: %w", cfg.ID, err)
	}

	l, err := c.keeper.connected(ctx)
	if err != nil {
		return nil, err
	}

	// The exec is registered before it is asked for, as its exit may come right after the answer.
	e := newExec(cfg.ID)
	m := wire.Message{
		Op:   wire.OpExec,
		Seq:  l.addExec(e),
		ID:   cfg.ID,
		Exec: &request,
	}

	got, gotFiles, err := l.callAs(context.WithoutCancel(ctx), m, files)
	defer gotFiles.Close()

	if err != nil {
		l.takeExec(m.Seq)
		return nil, err
	}

	e.Pid = got.Pid
	e.pidfd = gotFiles.Take(wire.FdPid)
	go e.watch(l)
	return e, nil
}

// addStdio adds the ends of pipes that a process gets, which it expects to block: os.Pipe makes both ends
// non-blocking.
func addStdio(files wire.Files, cfg ExecConfig) error {
	stdio := map[string]*os.File{
		wire.FdIn:  cfg.Stdin,
		wire.FdOut: cfg.Stdout,
		wire.FdErr: cfg.Stderr,
	}

	for name, f := range stdio {
		fd := fdOf(f)
		if fd < 0 {
			continue
		}
		if err := unix.SetNonblock(fd, false); err != nil {
			return fmt.Errorf("stdio of the process: %w", err)
		}

		files[name] = fd
	}

	return nil
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

	// The exit may have come just before the end of the connection.
	if isClosed(e.done) {
		return
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

// Close closes the descriptors. A process that still runs goes on (with a terminal it gets SIGHUP), and
// nobody waits for it.
func (e *Exec) Close() error {
	e.close.Do(func() {
		if e.Terminal != nil {
			e.Terminal.Close()
		}

		// watch may be using the pidfd.
		close(e.closing)
		<-e.watched
		if e.pidfd >= 0 {
			unix.Close(e.pidfd)
			e.pidfd = -1
		}
	})

	return nil
}

// Kill ends the process and all of its descendants. It stops each one before it looks for its children, so
// none can fork in between.
func (e *Exec) Kill() error {
	if isClosed(e.done) || e.pidfd < 0 || pidfd.Ended(e.pidfd) {
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

// collect stops pid and its descendants and appends their PIDs to tree.
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

	// WriteAt leaves the offset at the start, for the reader.
	f := os.NewFile(uintptr(fd), "process.json")
	if _, err := f.WriteAt(data, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("write process for container %s: %w", cfg.ID, err)
	}

	return f, nil
}

// fdOf returns the descriptor of a file; -1 if it is nil or closed. Unlike File.Fd, it leaves the file
// non-blocking.
func fdOf(f *os.File) int {
	if f == nil {
		return -1
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return -1
	}

	fd := -1
	_ = raw.Control(func(n uintptr) { fd = int(n) })
	return fd
}

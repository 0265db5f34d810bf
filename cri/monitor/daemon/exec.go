package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/nulldevice"
	"github.com/trivet-node/trivet/cri/monitor/pidfd"
	"github.com/trivet-node/trivet/cri/monitor/reaper"
	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// execProcess is a process that was started in a container.
type execProcess struct {
	container *container
	pid       int
	pidfd     int // -1 if it has ended and was reaped already
}

// exec starts the process of a request in a container. Descriptors that it opens are added to files, which
// the caller closes.
func (cs *containers) exec(m wire.Message, files wire.Files) (*execProcess, error) {
	c, err := cs.find(m.ID)
	if err != nil {
		return nil, err
	}

	pid, err := c.exec(m.Exec, files)
	if err != nil {
		return nil, fmt.Errorf("exec in container %s: %w", m.ID, err)
	}

	p := &execProcess{container: c, pid: pid}
	if p.pidfd, err = pidfd.Open(pid); err != nil {
		p.pidfd = -1
	}

	return p, nil
}

func (c *container) exec(want *wire.Exec, files wire.Files) (pid int, err error) {
	if want == nil || files[wire.FdProcess] == 0 {
		return 0, errors.New("the request names no process")
	}
	if c.hasExited() {
		return 0, wire.ErrExited
	}
	if err := checkDescriptors(freeForExec); err != nil {
		return 0, err
	}

	stdio, err := stdioOf(files)
	if err != nil {
		return 0, err
	}

	pidFile, err := c.node.execFile()
	if err != nil {
		return 0, err
	}
	defer os.Remove(pidFile)

	adj := c.record.OOMScoreAdj
	err = c.node.call(runtimeCall{
		runtime:     want.Runtime,
		verb:        "exec",
		id:          c.id,
		args:        want.Runtime.ExecArgs(c.id, pidFile, want.ConsoleSocket),
		stdio:       stdio,
		process:     files[wire.FdProcess],
		oomScoreAdj: &adj,
	})
	if err != nil {
		return 0, err
	}
	if pid, err = readPid(pidFile); err != nil {
		return 0, err
	}

	// The runtime may have started it before it got the value itself.
	reaper.SetOOMScore(pid, adj)
	return pid, nil
}

// stdioOf returns the descriptors for a process' stdio. What the client did not bring is a null device, which
// is added to files.
func stdioOf(files wire.Files) (stdio [3]int, err error) {
	for i, name := range []string{wire.FdIn, wire.FdOut, wire.FdErr} {
		fd, ok := files[name]
		if !ok {
			if fd, err = nulldevice.Open(); err != nil {
				return stdio, err
			}
			files[name] = fd
		}
		stdio[i] = fd
	}
	return stdio, nil
}

// onExit calls send with the exit of the process once it has ended. An upgrade waits for send.
func (p *execProcess) onExit(send func(wire.Exit)) {
	n := p.container.node
	n.reaper.Claim(p.pid, p.pidfd, func(status unix.WaitStatus) {
		exit := wire.ExitOf(p.container.id, status)
		exit.At = time.Now()
		n.exits.Go(func() { send(exit) })
	})
}

func (p *execProcess) close() {
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
	}
}

// execDir holds the pid files of execs while their runtimes run.
func (n *node) execDir() string { return filepath.Join(n.stateDir, "exec") }

// execFile makes an empty file that a runtime may write a PID to.
func (n *node) execFile() (string, error) {
	f, err := os.CreateTemp(n.execDir(), "pid")
	if err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// removeExecFiles removes what the execs of a killed monitor left.
func (n *node) removeExecFiles() error {
	return errors.Join(
		os.RemoveAll(n.execDir()),
		os.MkdirAll(n.execDir(), 0o700),
		os.RemoveAll(wire.ConsoleDir(n.stateDir)),
	)
}

package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
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
	pidfd     int  // -1 if it could not be opened
	reaped    bool // before it could be
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
		p.pidfd, p.reaped = -1, errors.Is(err, unix.ESRCH)
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

	process, err := holdProcess(files[wire.FdProcess], c.record.OOMScoreAdj)
	if err != nil {
		return 0, err
	}
	defer process.close()

	err = c.node.call(runtimeCall{
		runtime: want.Runtime,
		verb:    "exec",
		id:      c.id,
		args:    want.Runtime.ExecArgs(c.id, pidFile, want.ConsoleSocket),
		stdio:   stdio,
		process: process,
	})
	if err != nil {
		return 0, err
	}

	return readPid(pidFile)
}

// heldProcess is a process.json at the end of a pipe. A runtime cannot start the process before it has read
// all of it, and gets it when its own oom_score_adj is that of the container: with crun, the process
// inherits that of the runtime.
type heldProcess struct {
	oomScoreAdj int

	json        *os.File
	read, write *os.File
	copied      sync.WaitGroup
}

// holdProcess holds the process.json behind a descriptor.
func holdProcess(json, oomScoreAdj int) (p *heldProcess, err error) {
	p = &heldProcess{oomScoreAdj: oomScoreAdj}

	// The client may read the file, too: an open file of its own has a position of its own.
	if p.json, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", json)); err != nil {
		return nil, fmt.Errorf("process.json: %w", err)
	}
	if p.read, p.write, err = os.Pipe(); err != nil {
		p.json.Close()
		return nil, fmt.Errorf("pipe of process.json: %w", err)
	}

	return p, nil
}

// release lets the runtime with this PID read the process. It does not wait for that.
func (p *heldProcess) release(pid int) {
	reaper.SetOOMScore(pid, p.oomScoreAdj)

	// The runtime is alone at the other end, so that the pipe breaks when it ends without having read all.
	p.read.Close()

	p.copied.Go(func() {
		defer p.write.Close()

		// What is cut short is no JSON: the runtime says so itself.
		_, _ = io.Copy(p.write, p.json)
	})
}

// close ends what release began.
func (p *heldProcess) close() {
	p.read.Close()
	p.write.Close()
	p.copied.Wait()
	p.json.Close()
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
	n, id := p.container.node, p.container.id
	report := func(exit wire.Exit) {
		exit.At = time.Now()
		n.exits.Go(func() { send(exit) })
	}

	if !p.reaped {
		n.reaper.Claim(p.pid, p.pidfd, func(status unix.WaitStatus) { report(wire.ExitOf(id, status)) })
		return
	}

	// If it was not reaped here, then by the runtime, while that was its parent: nobody tells its status.
	exit := wire.Exit{ID: id, Code: wire.UnknownCode, Unknown: true}
	if status, ok := n.reaper.Unclaimed(p.pid, p.pidfd); ok {
		exit = wire.ExitOf(id, status)
	}
	report(exit)
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

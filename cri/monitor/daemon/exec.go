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
	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// exec starts a process in a container, answers, and tells this client of its end. Nothing of it is kept or
// written anywhere.
func (d *Daemon) exec(s *session, m wire.Message, files wire.Files) {
	d.reaper.begin()
	defer d.reaper.end()

	reply := wire.Message{Op: wire.OpReply, Seq: m.Seq}
	pid, err := d.startExec(m, files)
	if err != nil {
		reply.Fail = wire.FailOf(err)
		s.conn.Send(reply, nil)
		return
	}

	fd, err := pidfd.Open(pid)
	if err != nil {
		// it has ended and was reaped already
		fd = -1
	} else {
		defer unix.Close(fd)
	}

	reply.Pid = pid
	s.conn.Send(reply, wire.Files{wire.FdPid: fd})
	d.reaper.claim(pid, fd, func(status unix.WaitStatus) {
		exit := wire.ExitOf(m.ID, status)
		exit.At = time.Now()
		d.telling.Go(func() { s.conn.Send(wire.Message{Op: wire.OpExecExit, Seq: m.Seq, Exit: &exit}, nil) })
	})
}

func (d *Daemon) startExec(m wire.Message, files wire.Files) (pid int, err error) {
	c, err := d.lookup(m.ID)
	if err != nil {
		return 0, err
	}
	if m.Exec == nil || files[wire.FdProcess] == 0 {
		return 0, fmt.Errorf("exec in container %s: the request names no process", m.ID)
	}

	c.mu.Lock()
	exited := c.record.Exit != nil
	c.mu.Unlock()
	if exited {
		return 0, fmt.Errorf("exec in container %s: %w", m.ID, wire.ErrExited)
	}
	if err := d.room(freeForExec); err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", m.ID, err)
	}

	var stdio [3]int
	for i, name := range []string{wire.FdIn, wire.FdOut, wire.FdErr} {
		fd, ok := files[name]
		if !ok {
			if fd, err = nulldevice.Open(); err != nil {
				return 0, err
			}

			// closed with the others
			files[name] = fd
		}

		stdio[i] = fd
	}

	pidFile, err := d.pidFile()
	if err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", m.ID, err)
	}
	defer os.Remove(pidFile)

	// which never changes
	rt, adj := m.Exec.Runtime, c.record.OOMScoreAdj
	err = d.reaper.do(call{
		runtime:     rt,
		verb:        "exec",
		id:          m.ID,
		args:        rt.ExecArgs(m.ID, pidFile, m.Exec.ConsoleSocket),
		stdio:       stdio,
		extra:       []int{files[wire.FdProcess]},
		oomScoreAdj: &adj,
	})
	if err != nil {
		return 0, err
	}

	if pid, err = readPid(pidFile); err == nil {
		// should the runtime have been faster than we
		setOOMScore(pid, adj)
	}

	return pid, err
}

// pidFile makes a name that the runtime may write to.
func (d *Daemon) pidFile() (string, error) {
	f, err := os.CreateTemp(filepath.Join(d.cfg.StateDir, execDir), "pid")
	if err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// execDir holds pid files for the moment that they are needed.
const execDir = "exec"

// cleanExec removes what execs of a killed monitor left.
func (d *Daemon) cleanExec() error {
	dir := filepath.Join(d.cfg.StateDir, execDir)
	return errors.Join(
		os.RemoveAll(dir),
		os.MkdirAll(dir, 0o700),
		os.RemoveAll(wire.ConsoleDir(d.cfg.StateDir)),
	)
}

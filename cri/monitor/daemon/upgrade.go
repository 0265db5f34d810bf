package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/durable"
)

const (
	inheritFile = "inherit.json"
	inheritEnv  = "TRIVET_MONITOR_REEXEC"
)

// inheritance names the descriptors that come over an execve.
type inheritance struct {
	Pid int
	Fds map[string]int
}

// upgrade executes our binary anew in this very process: children stay children, so no exit status depends on anyone else. It waits for running
// operations, and returns only on an error.
func (d *Daemon) upgrade() error {
	d.busy.Lock()
	defer d.busy.Unlock()
	fds, closeFds, err := d.heirlooms()
	defer closeFds()
	if err != nil {
		return err
	}
	data, err := json.Marshal(inheritance{Pid: os.Getpid(), Fds: fds})
	if err != nil {
		return err
	}
	path := filepath.Join(d.cfg.StateDir, inheritFile)
	if err := durable.WriteVolatile(path, data, 0o600); err != nil {
		return err
	}
	d.log.Info("executing anew", "program", d.program)
	env := append(withoutReexec(os.Environ()), inheritEnv+"=1")
	// Until the new program handles it, a second SIGUSR2 would be the death of it. "Ignore" is what survives an execve.
	signal.Ignore(unix.SIGUSR2)
	err = unix.Exec(d.program, os.Args, env)
	os.Remove(path)
	return fmt.Errorf("execute %s: %w", d.program, err)
}

// heirlooms makes inheritable copies of what cannot be opened anew.
func (d *Daemon) heirlooms() (fds map[string]int, closeAll func(), err error) {
	fds = map[string]int{}
	closeAll = func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	add := func(name string, fd int) error {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, 3)
		if err != nil {
			return fmt.Errorf("keep %s: %w", name, err)
		}
		fds[name] = n
		return nil
	}
	if err := errors.Join(add(inheritLock, d.listen.lock), add(inheritState, d.stateLock)); err != nil {
		return fds, closeAll, err
	}
	raw, err := d.listen.sock.SyscallConn()
	if err != nil {
		return fds, closeAll, err
	}
	var addErr error
	if err := raw.Control(func(fd uintptr) { addErr = add(inheritListener, int(fd)) }); err != nil || addErr != nil {
		return fds, closeAll, fmt.Errorf("keep socket: %w", errors.Join(err, addErr))
	}
	for _, c := range d.all() {
		c.mu.Lock()
		if c.stdin >= 0 {
			addErr = add(inheritStdin+c.id, c.stdin)
		}
		if c.tty != nil && addErr == nil {
			if raw, err := c.tty.SyscallConn(); err == nil {
				raw.Control(func(fd uintptr) { addErr = add(inheritTTY+c.id, int(fd)) })
			}
		}
		c.mu.Unlock()
		if addErr != nil {
			return fds, closeAll, addErr
		}
	}
	return fds, closeAll, nil
}

func withoutReexec(env []string) []string {
	var out []string
	for _, e := range env {
		if !strings.HasPrefix(e, inheritEnv+"=") {
			out = append(out, e)
		}
	}
	return out
}

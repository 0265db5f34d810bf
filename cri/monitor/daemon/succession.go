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

	"github.com/trivet-node/trivet/cri/monitor/pidfd"
	"github.com/trivet-node/trivet/cri/monitor/wire"
	"github.com/trivet-node/trivet/internal/durable"
)

// recover takes over from an earlier monitor that was killed, or from ourselves before an execve. No problem
// of one container keeps the others from being looked after.
func (d *Daemon) recover(inherited map[string]int) {
	if err := d.cleanExec(); err != nil {
		d.log.Warn("leftovers of execs stay", "err", err)
	}

	found := d.records()
	for _, err := range d.journal.Recover(d.resolve(found)) {
		d.log.Error("output of a killed monitor", "err", err)
	}

	for _, r := range found {
		c := d.newContainer(r)
		close(c.told)
		if r.Creating {
			if err := d.discard(c); err != nil {
				d.log.Error("container that was half made stays", "container", r.ID, "err", err)
			}

			continue
		}

		d.containers[r.ID] = c
		if err := d.revive(c, inherited); err != nil {
			d.log.Error("container is not looked after", "container", r.ID, "err", err)
		}
	}

	d.closeUnclaimed(inherited)
}

// records reads all records. A directory without a readable one is set aside by name, never deleted unseen.
func (d *Daemon) records() map[string]record {
	dir := filepath.Join(d.cfg.StateDir, "containers")
	entries, err := os.ReadDir(dir)
	if err != nil {
		d.log.Error("read records", "err", err)
		return nil
	}

	found := map[string]record{}
	for _, e := range entries {
		if !durable.ValidName(e.Name()) || !e.IsDir() {
			continue
		}

		r, err := d.readRecord(e.Name())

		// killed before the intent was written or after it was removed: nothing was made, or nothing is left
		if errors.Is(err, os.ErrNotExist) {
			os.RemoveAll(filepath.Join(dir, e.Name()))
			continue
		}

		if err != nil {
			d.log.Error("record is set aside", "container", e.Name(), "err", err)
			os.Rename(filepath.Join(dir, e.Name()), filepath.Join(dir, ".torn-"+e.Name()))
			continue
		}

		found[r.ID] = r
	}

	return found
}

// readRecord reads the record of a container. ErrNotExist when there is none.
func (d *Daemon) readRecord(id string) (r record, err error) {
	data, err := os.ReadFile(filepath.Join(wire.ContainerDir(d.cfg.StateDir, id), "record.json"))
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil && r.ID != id {
		err = fmt.Errorf("record of container %s speaks of container %q", id, r.ID)
	}
	return r, err
}

// resolve finds FIFO and log by the key of a stream.
func (d *Daemon) resolve(found map[string]record) func(key string) (fifo, log string, ok bool) {
	return func(key string) (string, string, bool) {
		id, name, _ := strings.Cut(key, "/")
		r, ok := found[id]
		if !ok {
			return "", "", false
		}
		return filepath.Join(wire.ContainerDir(d.cfg.StateDir, id), name), r.LogPath, true
	}
}

// revive looks after a container again that an earlier monitor had made.
func (d *Daemon) revive(c *container, inherited map[string]int) error {
	if c.record.Exit != nil {
		close(c.ended)
		return nil
	}

	fd, alive := c.find()
	c.pidfd = fd

	// without its log, a container must still not be blocked by a full FIFO
	streamsErr := errors.Join(c.openLog(), d.openStreams(c))
	for _, st := range c.streams() {
		go st.Pump(d.journal)
	}

	if tty, ok := inherited[inheritTTY+c.id]; ok && c.record.TTY {
		delete(inherited, inheritTTY+c.id)
		c.setTerminal(tty)
	}

	if stdin, ok := inherited[inheritStdin+c.id]; ok {
		delete(inherited, inheritStdin+c.id)
		c.stdin = stdin
	} else if c.record.StdinOnce && !c.record.StdinClosed && !c.record.TTY {
		// ENXIO: nobody reads any more
		c.stdin, _ = unix.Open(c.path(wire.StdinFIFO), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}

	if parent, err := pidfd.Parent(c.record.Pid); alive && err == nil && parent == os.Getpid() {
		d.reaper.claim(c.record.Pid, fd, d.finisher(c))
	} else if status, ended := d.reaper.orphan(c.record.Pid, fd); ended {
		// in the execve of an upgrade, or just now
		d.finisher(c)(status)
	} else if alive {
		go d.watch(c, fd, c.record.Pid)
	} else {
		c.lost = true
	}

	return streamsErr
}

// find opens the container's first process if it is still there, be it as a zombie.
func (c *container) find() (fd int, alive bool) {
	fd, err := pidfd.Open(c.record.Pid)
	if err != nil {
		return -1, false
	}
	start, err := pidfd.StartTime(c.record.Pid)
	if err != nil || start != c.record.StartTime {
		unix.Close(fd)
		return -1, false
	}
	return fd, true
}

// closeUnclaimed closes inherited descriptors that no container has asked for.
func (d *Daemon) closeUnclaimed(inherited map[string]int) {
	for name, fd := range inherited {
		if strings.HasPrefix(name, inheritTTY) || strings.HasPrefix(name, inheritStdin) {
			unix.Close(fd)
		}
	}
}

const (
	inheritFile = "inherit.json"
	inheritEnv  = "TRIVET_MONITOR_REEXEC"
)

// inheritance names the descriptors that come over an execve.
type inheritance struct {
	Pid int
	Fds map[string]int
}

// upgrade executes our binary anew in this very process: children stay children, so no exit status depends on
// anyone else. It waits for running operations and for exits that are on their way, and returns only on an
// error.
func (d *Daemon) upgrade() error {
	d.busy.Lock()
	defer d.busy.Unlock()

	d.reaper.pause()
	defer d.reaper.resume()

	d.telling.Wait()
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
	// Until the new program handles it, a second SIGUSR2 would be the death of it. "Ignore" is what survives
	// an execve.
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
	if err := errors.Join(add(inheritLock, int(d.listen.lock.Fd())), add(inheritState, int(d.stateLock.Fd()))); err != nil {
		return fds, closeAll, err
	}

	raw, err := d.listen.sock.SyscallConn()
	if err != nil {
		return fds, closeAll, err
	}

	var addErr error
	if err := raw.Control(func(fd uintptr) {
		addErr = add(
			inheritListener,
			int(fd),
		)
	}); err != nil || addErr != nil {
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

package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/logfile"
	"github.com/trivet-node/trivet/cri/monitor/output"
	"github.com/trivet-node/trivet/cri/monitor/pidfd"
	"github.com/trivet-node/trivet/cri/monitor/wire"
	"github.com/trivet-node/trivet/internal/durable"
)

// record is the file that a container's successor monitor goes by.
type record struct {
	wire.Status
	// the runtime has been asked to make it: a monitor that finds this undoes it
	Creating    bool   `json:",omitempty"`
	StartTime   uint64 `json:",omitempty"` // of Pid, see pidfd.StartTime
	StdinClosed bool   `json:",omitempty"`
}

// container is one container of the node. created -> exited -> forgotten; log and streams never change after
// it was made or revived.
type container struct {
	id     string
	dir    string
	log    *logfile.File  // nil without a log path
	stdout *output.Stream // nil once an earlier monitor has recorded the exit
	stderr *output.Stream // nil with a terminal
	told   chan struct{}  // closed when the client knows of it, so that its exit cannot be told before
	ended  chan struct{}  // closed when record.Exit is set and told
	gone   chan struct{}  // closed when it is forgotten
	kills  uint64         // OOM kills in its pod before it was made

	mu     sync.Mutex // guards all below
	record record
	pidfd  int
	tty    *os.File
	stage  int // writing end of the FIFO behind a terminal, while no terminal is there; else -1
	stdin  int // writing end that keeps a StdinOnce container's stdin open, else -1
	lost   bool
}

func (d *Daemon) newContainer(r record) *container {
	return &container{
		id:     r.ID,
		dir:    wire.ContainerDir(d.cfg.StateDir, r.ID),
		record: r,
		pidfd:  -1,
		stage:  -1,
		stdin:  -1,
		kills:  d.podKills(r.Cgroup),
		told:   make(chan struct{}),
		ended:  make(chan struct{}),
		gone:   make(chan struct{}),
	}
}

func (c *container) path(name string) string { return filepath.Join(c.dir, name) }

// save writes the record. c.mu is held, or nobody else knows c yet.
func (c *container) save() error {
	data, err := json.Marshal(c.record)
	if err == nil {
		err = durable.WriteVolatile(c.path("record.json"), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("record of container %s: %w", c.id, err)
	}
	return nil
}

// openLog opens the container's log.
func (c *container) openLog() (err error) {
	if c.record.LogPath != "" {
		c.log, err = logfile.Open(c.record.LogPath)
	}
	return err
}

// openStreams opens the reading ends of the output FIFOs, which exist.
func (d *Daemon) openStreams(c *container) (err error) {
	c.stdout, err = output.Open(c.path(wire.StdoutFIFO), c.id+"/"+wire.StdoutFIFO, "stdout", c.log, d.log)
	if err != nil {
		return err
	}
	if !c.record.TTY {
		c.stderr, err = output.Open(c.path(wire.StderrFIFO), c.id+"/"+wire.StderrFIFO, "stderr", c.log, d.log)
		return err
	}
	c.stage, err = unix.Open(c.path(wire.StdoutFIFO), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	return err
}

func (c *container) streams() []*output.Stream {
	var all []*output.Stream
	for _, st := range []*output.Stream{c.stdout, c.stderr} {
		if st != nil {
			all = append(all, st)
		}
	}
	return all
}

// setTerminal starts to read a terminal's master. A second one is closed.
func (c *container) setTerminal(fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tty != nil || c.stage < 0 || unix.SetNonblock(fd, true) != nil {
		unix.Close(fd)
		return
	}
	c.tty = os.NewFile(uintptr(fd), "terminal")
	go output.PumpTerminal(c.tty, c.stage)
	c.stage = -1
}

// share returns the status and copies of all descriptors that a second holder needs.
func (c *container) share() (wire.Status, wire.Files) {
	c.mu.Lock()
	defer c.mu.Unlock()

	if c.record.Exit != nil {
		return c.record.Status, nil
	}

	files := wire.Files{}
	add := func(name string, fd int) {
		if fd >= 0 {
			files[name] = fd
		}
	}

	add(wire.FdPid, dup(c.pidfd))
	add(wire.FdIn, dup(c.stdin))
	if c.stdout != nil {
		add(wire.FdOut, c.stdout.Share())
	}
	if c.stderr != nil {
		add(wire.FdErr, c.stderr.Share())
	}

	if c.tty != nil {
		if raw, err := c.tty.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) { add(wire.FdTTY, dup(int(fd))) })
		}
	}

	return c.record.Status, files
}

// watch waits for the end of a container that is not our child, because the monitor that made it was killed.
func (d *Daemon) watch(c *container, fd, pid int) {
	if pidfd.Wait(fd, c.gone) != nil {
		// forgotten
		return
	}
	status, err := pidfd.Status(fd, pid)
	if err != nil {
		d.finish(c, wire.Exit{ID: c.id, Code: wire.UnknownCode, Unknown: true})
		return
	}
	d.finish(c, wire.ExitOf(c.id, status))
}

// giveUp is called when everybody has handed back what he held: a terminal that is still missing is gone, and
// so is the status of a process that ended while nobody looked.
func (d *Daemon) giveUp(c *container) {
	c.mu.Lock()
	if c.stage >= 0 {
		unix.Close(c.stage)
		c.stage = -1
	}
	lost := c.lost
	c.lost = false
	c.mu.Unlock()
	if lost {
		d.finish(c, wire.Exit{ID: c.id, Code: wire.UnknownCode, Unknown: true})
	}
}

// adopt takes back what a client held for a container while its monitor was dead.
func (d *Daemon) adopt(id string, files wire.Files) {
	c, err := d.lookup(id)
	if err != nil {
		return
	}
	if fd := files.Take("tty"); fd >= 0 {
		c.setTerminal(fd)
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	if fd := files.Take("pid"); fd >= 0 {
		if !c.lost {
			unix.Close(fd)
			return
		}

		c.lost, c.pidfd = false, fd
		go d.watch(c, fd, c.record.Pid)
	}
}

// finisher is what the reaper calls with the status of a container's first process.
func (d *Daemon) finisher(c *container) func(unix.WaitStatus) {
	return func(status unix.WaitStatus) { d.telling.Go(func() { d.finish(c, wire.ExitOf(c.id, status)) }) }
}

// finish records and tells an exit, after all output that came before it is in the log.
func (d *Daemon) finish(c *container, exit wire.Exit) {
	exit.At = time.Now()

	// at once: systemd removes an empty group as soon as it hears of it
	exit.OOM = d.oomKilled(c, exit)
	if c.record.SharedPID {
		d.endRest(c)
	}

	c.drain()
	c.mu.Lock()
	if c.record.Exit != nil {
		c.mu.Unlock()
		return
	}

	c.record.Exit = &exit
	if err := c.save(); err != nil {
		d.log.Error("exit is not recorded", "container", c.id, "err", err)
	}

	c.mu.Unlock()
	<-c.told
	d.tell(wire.Message{Op: wire.OpExit, Exit: &exit})
	d.log.Debug("container exited", "container", c.id, "exit", exit.String())
	close(c.ended)
}

// endRest kills what a container has left running: only the init of a PID namespace takes the others along,
// and they would hold the output open.
func (d *Daemon) endRest(c *container) {
	if c.record.Cgroup == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), destroyTimeout)
	defer cancel()
	if err := d.cgroups.Kill(ctx, c.record.Cgroup); err != nil {
		d.log.Warn("processes outlive their container", "container", c.id, "err", err)
	}
}

// drainTimeout bounds the wait for output that is already written. Processes that outlive the container may
// hold its FIFOs open.
const drainTimeout = 5 * time.Second

// drain waits until the output has ended or, if others still hold it open, until what is there now was read.
func (c *container) drain() {
	timeout := time.NewTimer(drainTimeout)
	defer timeout.Stop()

	for _, st := range c.streams() {
		pause := 10 * time.Millisecond
	wait:
		for {
			select {
			case <-st.Done():
				break wait
			case <-timeout.C:
				return
			case <-time.After(pause):
				if c.closedOrEmpty(st) {
					break wait
				}
			}
		}
	}
}

// closedOrEmpty tells, for a stream that somebody still holds open, that nothing is in it. A terminal may
// have more to give than its FIFO.
func (c *container) closedOrEmpty(st *output.Stream) bool {
	c.mu.Lock()
	terminal := c.tty != nil
	c.mu.Unlock()
	return !terminal && st.Empty()
}

// oomKilled reports whether the OOM killer struck in the container's group. systemd removes the group of a
// scope, and the kernel's count with it, when it hears that it is empty, which may be before we do. On cgroup
// v2 the pod's group has the count of all its containers; it serves for one that was killed.
func (d *Daemon) oomKilled(c *container, exit wire.Exit) bool {
	if c.record.Cgroup == "" {
		return false
	}
	if kills, err := d.cgroups.OOMKills(c.record.Cgroup); err == nil {
		return kills > 0
	}

	wasKilled := exit.Code == 128+int(unix.SIGKILL)
	return wasKilled && d.podKills(c.record.Cgroup) > c.kills
}

// podKills is how many OOM kills there were up to now in the group above a container's; on cgroup v1, which
// does not count them there, none.
func (d *Daemon) podKills(group string) uint64 {
	if !d.cgroups.V2 || group == "" {
		return 0
	}
	kills, err := d.cgroups.OOMKills(path.Dir(group))
	if err != nil {
		return 0
	}
	return kills
}

// close gives up all descriptors.
func (c *container) close() {
	close(c.gone)
	for _, st := range c.streams() {
		st.Close()
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	if c.log != nil {
		c.log.Close()
	}
	if c.tty != nil {
		c.tty.Close()
	}

	for _, fd := range []*int{&c.pidfd, &c.stage, &c.stdin} {
		if *fd >= 0 {
			unix.Close(*fd)
		}

		*fd = -1
	}
}

// dup copies a descriptor, close-on-exec; -1 if it cannot.
func dup(fd int) int {
	if fd < 0 {
		return -1
	}
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1
	}
	return n
}

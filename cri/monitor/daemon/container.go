package daemon

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/logfile"
	"github.com/trivet-node/trivet/cri/logjournal"
	"github.com/trivet-node/trivet/cri/monitor/handover"
	"github.com/trivet-node/trivet/cri/monitor/output"
	"github.com/trivet-node/trivet/cri/monitor/wire"
	"github.com/trivet-node/trivet/internal/durable"
)

// recordFile is the file that the successor of a killed monitor reads, in the container's directory. Monitors
// of other versions read it.
const recordFile = "record.json"

type record struct {
	wire.Status

	// Creating says that the runtime has been asked to make the container: a monitor that finds this undoes
	// it.
	Creating bool `json:",omitempty"`

	StartTime   uint64 `json:",omitempty"` // of Pid, as from pidfd.StartTime
	StdinClosed bool   `json:",omitempty"`
}

// container is one container of the node: created, then ended, then forgotten. Its outputs never change after
// it was made or resumed.
type container struct {
	node *node
	id   string
	dir  string
	out  outputs

	announced chan struct{} // closed when the client knows of it: its exit is sent only then
	ended     chan struct{} // closed when record.Exit is set and sent
	forgotten chan struct{} // closed by close
	podKills  uint64        // OOM kills in its pod before it was made

	// mu guards all below.
	mu     sync.Mutex
	record record
	fds    descriptors

	// statusLost: its process ended while no monitor lived. A client's pidfd may still know the status.
	statusLost bool
}

// descriptors are those that a container needs the monitor to hold; -1 or nil where there is none.
type descriptors struct {
	pid   int
	stdin int      // writing end that keeps a StdinOnce container's stdin open
	tty   *os.File // master of its terminal

	// staging is the writing end of the FIFO behind a terminal, until there is the terminal.
	staging int
}

func newContainer(n *node, r record) *container {
	return &container{
		node:      n,
		id:        r.ID,
		dir:       wire.ContainerDir(n.stateDir, r.ID),
		announced: make(chan struct{}),
		ended:     make(chan struct{}),
		forgotten: make(chan struct{}),
		podKills:  n.podKills(r.Cgroup),
		record:    r,
		fds:       descriptors{pid: -1, stdin: -1, staging: -1},
	}
}

func (c *container) path(name string) string { return filepath.Join(c.dir, name) }

// save writes the record. It needs c.mu, unless nobody else knows c yet.
func (c *container) save() error {
	data, err := json.Marshal(c.record)
	if err == nil {
		err = durable.WriteVolatile(c.path(recordFile), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("record of container %s: %w", c.id, err)
	}
	return nil
}

func (c *container) hasExited() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record.Exit != nil
}

// openLog opens the container's log, if it has one.
func (c *container) openLog() (err error) {
	if c.record.LogPath != "" {
		c.out.log, err = logfile.Open(c.record.LogPath)
	}
	return err
}

// openStreams opens the reading ends of the output FIFOs, which exist.
func (c *container) openStreams() (err error) {
	open := func(fifo, name string) (*output.Stream, error) {
		return output.Open(c.path(fifo), c.id+"/"+fifo, name, c.out.log, c.node.log)
	}

	c.out.stdout, err = open(wire.StdoutFIFO, "stdout")
	if err != nil {
		return err
	}

	if !c.record.TTY {
		c.out.stderr, err = open(wire.StderrFIFO, "stderr")
		return err
	}

	c.fds.staging, err = unix.Open(c.path(wire.StdoutFIFO), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	return err
}

// setTerminal takes the master of the container's terminal and starts to read it. If it has one, fd is
// closed.
func (c *container) setTerminal(fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fds.tty != nil || c.fds.staging < 0 || unix.SetNonblock(fd, true) != nil {
		unix.Close(fd)
		return
	}

	c.fds.tty = os.NewFile(uintptr(fd), "terminal")
	go output.PumpTerminal(c.fds.tty, c.fds.staging)
	c.fds.staging = -1
}

// setProcess takes a client's pidfd of the container's process, for its status. If that is not lost, fd is
// closed.
func (c *container) setProcess(fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.statusLost {
		unix.Close(fd)
		return
	}
	c.statusLost = false
	c.fds.pid = fd
	go c.watch(fd, c.record.Pid)
}

// acceptLoss ends the wait for what no client has handed back: the terminal, and the status of a process that
// ended while no monitor lived.
func (c *container) acceptLoss() {
	c.mu.Lock()
	if c.fds.staging >= 0 {
		unix.Close(c.fds.staging)
		c.fds.staging = -1
	}

	lost := c.statusLost
	c.statusLost = false
	c.mu.Unlock()

	if lost {
		c.end(wire.Exit{ID: c.id, Code: wire.UnknownCode, Unknown: true})
	}
}

// share returns the status and copies of all descriptors that a second holder needs. The caller closes them.
func (c *container) share() (wire.Status, wire.Files) {
	c.mu.Lock()
	defer c.mu.Unlock()

	if c.record.Exit != nil {
		return c.record.Status, nil
	}

	files := wire.Files{
		wire.FdPid: dup(c.fds.pid),
		wire.FdIn:  dup(c.fds.stdin),
		wire.FdOut: c.out.stdout.Share(),
		wire.FdErr: c.out.stderr.Share(),
	}
	if c.fds.tty != nil {
		if raw, err := c.fds.tty.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { files[wire.FdTTY] = dup(int(fd)) })
		}
	}

	return c.record.Status, files
}

// handOver adds what the program after an upgrade cannot open again.
func (c *container) handOver(to handover.Descriptors) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fds.stdin >= 0 {
		if err := to.Add(handStdin+c.id, c.fds.stdin); err != nil {
			return err
		}
	}
	if c.fds.tty != nil {
		return to.AddConn(handTerminal+c.id, c.fds.tty)
	}
	return nil
}

// closeStdin closes the monitor's writing end. The container sees the end of its stdin when the client has
// closed its own.
func (c *container) closeStdin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.record.StdinClosed = true
	if c.fds.stdin >= 0 {
		unix.Close(c.fds.stdin)
		c.fds.stdin = -1
	}
	return c.save()
}

// attach copies the container's output to the client's pipes from now on. It takes them out of files.
func (c *container) attach(files wire.Files) error {
	if c.hasExited() {
		return fmt.Errorf("attach to container %s: %w", c.id, wire.ErrExited)
	}
	if err := checkDescriptors(freeForAttach); err != nil {
		return fmt.Errorf("attach to container %s: %w", c.id, err)
	}

	for name, stream := range map[string]*output.Stream{wire.FdOut: c.out.stdout, wire.FdErr: c.out.stderr} {
		if fd := files.Take(name); fd >= 0 {
			if err := stream.Attach(fd); err != nil {
				return fmt.Errorf("attach to container %s: %w", c.id, err)
			}
		}
	}

	return nil
}

// close closes all descriptors.
func (c *container) close() {
	close(c.forgotten)
	c.out.close()

	c.mu.Lock()
	defer c.mu.Unlock()

	if c.fds.tty != nil {
		c.fds.tty.Close()
	}

	for _, fd := range []int{c.fds.pid, c.fds.stdin, c.fds.staging} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}

	c.fds = descriptors{pid: -1, stdin: -1, staging: -1}
}

// outputs are where a container's output goes.
type outputs struct {
	log    *logfile.File  // nil without a log path
	stdout *output.Stream // nil once an earlier monitor has recorded the exit
	stderr *output.Stream // nil with a terminal
}

func (o outputs) streams() []*output.Stream {
	var all []*output.Stream
	for _, s := range []*output.Stream{o.stdout, o.stderr} {
		if s != nil {
			all = append(all, s)
		}
	}
	return all
}

// pump lets the output flow into the log, until it ends.
func (o outputs) pump(j *logjournal.Journal) {
	for _, s := range o.streams() {
		go s.Pump(j)
	}
}

// reopenLog opens the log again after a rotation.
func (o outputs) reopenLog() error {
	if o.log == nil {
		return nil
	}
	return o.log.Reopen()
}

func (o outputs) close() {
	for _, s := range o.streams() {
		s.Close()
	}
	if o.log != nil {
		o.log.Close()
	}
}

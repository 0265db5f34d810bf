package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/console"
	"github.com/trivet-node/trivet/cri/monitor/nulldevice"
	"github.com/trivet-node/trivet/cri/monitor/pidfd"
	"github.com/trivet-node/trivet/cri/monitor/wire"
	"github.com/trivet-node/trivet/internal/durable"
)

// create makes a container and answers. Its exit is told after the answer.
func (d *Daemon) create(s *session, m wire.Message) {
	reply := wire.Message{Op: wire.OpReply, Seq: m.Seq}
	c, err := d.makeContainer(m.Container)
	if err != nil {
		reply.Fail = wire.FailOf(err)
		s.conn.Send(reply, nil)
		return
	}

	status, files := c.share()
	reply.Status = &status
	err = s.conn.Send(reply, files)
	files.Close()
	close(c.told)

	// the client is gone, and its successor may already have asked us to forget what was not there yet
	if err != nil {
		d.log.Info("container is dropped: who asked for it is gone",
			"container", c.id, "err", errors.Join(err, d.forget(c.id, false)))
	}
}

func (d *Daemon) makeContainer(want *wire.Container) (c *container, err error) {
	if want == nil || !durable.ValidName(want.ID) {
		return nil, fmt.Errorf("create: the container has no valid ID")
	}

	unlock, err := d.locks.Lock(context.Background(), want.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()

	if _, err := d.lookup(want.ID); err == nil {
		return nil, fmt.Errorf("create container %s: %w", want.ID, wire.ErrExists)
	}

	c = d.newContainer(record{Status: wire.Status{Container: *want}, Creating: true})
	d.reaper.begin()
	defer d.reaper.end()

	if err := d.build(c); err != nil {
		return nil, errors.Join(fmt.Errorf("create container %s: %w", c.id, err), d.discard(c))
	}

	d.mu.Lock()
	d.containers[c.id] = c
	d.mu.Unlock()
	d.begin(c)
	return c, nil
}

// build writes the intent, makes the FIFOs, and lets the runtime make the container. On an error, discard
// undoes all of it.
func (d *Daemon) build(c *container) error {
	if err := os.Mkdir(c.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := c.save(); err != nil {
		return err
	}
	if err := c.makeFIFOs(); err != nil {
		return err
	}
	if err := c.openLog(); err != nil {
		return err
	}
	if err := d.openStreams(c); err != nil {
		return err
	}

	var err error
	if c.record.TTY {
		err = d.buildWithTerminal(c)
	} else {
		err = d.buildWithFIFOs(c)
	}

	if err != nil {
		return err
	}

	return c.identify()
}

func (c *container) makeFIFOs() error {
	names := []string{wire.StdoutFIFO}
	if !c.record.TTY {
		names = append(names, wire.StderrFIFO)
		if c.record.Stdin {
			names = append(names, wire.StdinFIFO)
		}
	}

	for _, name := range names {
		if err := unix.Mkfifo(c.path(name), 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make FIFO %s: %w", c.path(name), err)
		}
	}

	return nil
}

// buildWithFIFOs gives the container FIFOs that it holds open itself, for reading and writing: so it is never
// told that nobody reads.
func (d *Daemon) buildWithFIFOs(c *container) error {
	var stdio [3]int
	for i, name := range []string{"", wire.StdoutFIFO, wire.StderrFIFO} {
		var err error
		if i == 0 {
			stdio[0], err = c.openStdin()
		} else {
			stdio[i], err = unix.Open(c.path(name), unix.O_RDWR|unix.O_CLOEXEC, 0)
		}

		if err != nil {
			return fmt.Errorf("open stdio of the container: %w", err)
		}
		defer unix.Close(stdio[i])
	}

	return d.reaper.do(call{
		runtime: c.record.Runtime,
		verb:    "create",
		id:      c.id,
		args:    c.record.Runtime.CreateArgs(c.id, c.record.Bundle, c.path("pid"), ""),
		stdio:   stdio,
	})
}

// openStdin returns the container's end of its stdin. Normally it can be written through the same descriptor,
// so it never ends. With StdinOnce it ends with its last writer, and we are the first one.
func (c *container) openStdin() (int, error) {
	if !c.record.Stdin {
		return nulldevice.Open()
	}

	path := c.path(wire.StdinFIFO)
	if !c.record.StdinOnce {
		return unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	}

	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if c.stdin, err = unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
		err = unix.SetNonblock(fd, false)
	}

	if err != nil {
		unix.Close(fd)
		return -1, err
	}

	return fd, nil
}

// terminalTimeout bounds the wait for the terminal after the runtime said that the container is made.
const terminalTimeout = 10 * time.Second

func (d *Daemon) buildWithTerminal(c *container) error {
	socket, err := console.Listen(wire.ConsoleDir(d.cfg.StateDir))
	if err != nil {
		return err
	}
	defer socket.Close()

	null, err := nulldevice.Open()
	if err != nil {
		return err
	}
	defer unix.Close(null)

	rt := c.record.Runtime
	args := rt.CreateArgs(c.id, c.record.Bundle, c.path("pid"), socket.Path)
	if err := d.reaper.do(call{
		runtime: rt,
		verb:    "create",
		id:      c.id,
		args:    args,
		stdio:   [3]int{null, null, null},
	}); err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(context.Background(), terminalTimeout)
	defer cancel()

	master, err := socket.Receive(ctx)
	if err != nil {
		return err
	}
	defer master.Close()

	if fd := dup(int(master.Fd())); fd >= 0 {
		c.setTerminal(fd)
		return nil
	}

	return errors.New("no descriptor is left for the terminal")
}

// identify notes the container's first process, for good.
func (c *container) identify() error {
	pid, err := readPid(c.path("pid"))
	if err != nil {
		return err
	}

	// older crun leaves ours where the value is 0
	setOOMScore(pid, c.record.OOMScoreAdj)
	c.record.Pid, c.record.Creating = pid, false
	if c.record.StartTime, err = pidfd.StartTime(pid); err != nil {
		return fmt.Errorf("container's first process: %w", err)
	}
	if c.pidfd, err = pidfd.Open(pid); err != nil {
		return err
	}

	return c.save()
}

// begin lets the output flow and waits for the end.
func (d *Daemon) begin(c *container) {
	for _, st := range c.streams() {
		go st.Pump(d.journal)
	}
	d.reaper.claim(c.record.Pid, c.pidfd, d.finisher(c))
}

func readPid(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("pid file: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("pid file %s holds %q", path, data)
	}
	return pid, nil
}

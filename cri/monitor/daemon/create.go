package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/console"
	"github.com/trivet-node/trivet/cri/monitor/nulldevice"
	"github.com/trivet-node/trivet/cri/monitor/pidfd"
	"github.com/trivet-node/trivet/cri/monitor/reaper"
	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// creation makes a container. On an error, container.undo takes back all that was made.
type creation struct {
	c *container
}

func (b *creation) run() error {
	// The record is the intent: it comes before all that a successor would have to undo.
	if err := os.Mkdir(b.c.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := b.c.save(); err != nil {
		return err
	}

	if err := b.makeFIFOs(); err != nil {
		return err
	}
	if err := b.c.openLog(); err != nil {
		return err
	}
	if err := b.c.openStreams(); err != nil {
		return err
	}

	makeProcess := b.withFIFOs
	if b.c.record.TTY {
		makeProcess = b.withTerminal
	}
	if err := makeProcess(); err != nil {
		return err
	}

	return b.identify()
}

func (b *creation) makeFIFOs() error {
	names := []string{wire.StdoutFIFO}
	if !b.c.record.TTY {
		names = append(names, wire.StderrFIFO)
		if b.c.record.Stdin {
			names = append(names, wire.StdinFIFO)
		}
	}

	for _, name := range names {
		if err := unix.Mkfifo(b.c.path(name), 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make FIFO %s: %w", b.c.path(name), err)
		}
	}

	return nil
}

// withFIFOs gives the container FIFOs that it holds open itself, for reading and writing: so it never gets
// SIGPIPE because the monitor is dead.
func (b *creation) withFIFOs() error {
	stdin, err := b.openStdin()
	if err != nil {
		return fmt.Errorf("open stdin of the container: %w", err)
	}
	defer unix.Close(stdin)

	stdout, err := unix.Open(b.c.path(wire.StdoutFIFO), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open stdout of the container: %w", err)
	}
	defer unix.Close(stdout)

	stderr, err := unix.Open(b.c.path(wire.StderrFIFO), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open stderr of the container: %w", err)
	}
	defer unix.Close(stderr)

	return b.callRuntime([3]int{stdin, stdout, stderr}, "")
}

// openStdin returns the container's end of its stdin. Normally it can be written through the same descriptor,
// so it never ends. With StdinOnce it ends with its last writer, and the monitor is the first one.
func (b *creation) openStdin() (int, error) {
	if !b.c.record.Stdin {
		return nulldevice.Open()
	}

	path := b.c.path(wire.StdinFIFO)
	if !b.c.record.StdinOnce {
		return unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	}

	// Non-blocking, or the open would wait for a writer.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}

	b.c.fds.stdin, err = unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
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

func (b *creation) withTerminal() error {
	socket, err := console.Listen(wire.ConsoleDir(b.c.node.stateDir))
	if err != nil {
		return err
	}
	defer socket.Close()

	null, err := nulldevice.Open()
	if err != nil {
		return err
	}
	defer unix.Close(null)

	// The container's stdio is the terminal, which the runtime opens; what is given here is for itself.
	if err := b.callRuntime([3]int{null, null, null}, socket.Path); err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(context.Background(), terminalTimeout)
	defer cancel()

	master, err := socket.Receive(ctx)
	if err != nil {
		return err
	}
	defer master.Close()

	// The container owns its copy of the master.
	fd := dup(int(master.Fd()))
	if fd < 0 {
		return errors.New("no descriptor is left for the terminal")
	}

	b.c.setTerminal(fd)
	return nil
}

func (b *creation) callRuntime(stdio [3]int, consoleSocket string) error {
	r := b.c.record
	return b.c.node.call(runtimeCall{
		runtime: r.Runtime,
		verb:    "create",
		id:      r.ID,
		args:    r.Runtime.CreateArgs(r.ID, r.Bundle, b.c.path(pidFile), consoleSocket),
		stdio:   stdio,
	})
}

// pidFile is where the runtime writes the PID of the container's first process, in the container's directory.
const pidFile = "pid"

// identify records the container's first process so that it cannot be mistaken for a later one of the same
// PID. The creation is complete then.
func (b *creation) identify() error {
	r := &b.c.record
	pid, err := readPid(b.c.path(pidFile))
	if err != nil {
		return err
	}

	// Older versions of crun leave the monitor's own value where the container's is 0.
	reaper.SetOOMScore(pid, r.OOMScoreAdj)

	start, err := pidfd.StartTime(pid)
	if err != nil {
		return fmt.Errorf("first process of the container: %w", err)
	}
	if b.c.fds.pid, err = pidfd.Open(pid); err != nil {
		return err
	}

	r.Pid = pid
	r.StartTime = start
	r.Creating = false
	return b.c.save()
}

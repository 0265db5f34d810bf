package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// Streams are the caller's ends of an attach; each may be nil. With a terminal, all output comes on Stdout.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Attach connects s with a container's streams, from now on, until the container ends, a writer of s fails,
// or ctx ends. If the monitor dies, Attach attaches to the next one; what the container wrote in between is
// in its log only.
func (c *Client) Attach(ctx context.Context, id string, s Streams) error {
	h, err := c.containers.find(id)
	if err != nil {
		return err
	}
	if isClosed(h.done) {
		return fmt.Errorf("attach to container %s: %w", id, ErrExited)
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	a := &attachment{
		client:    c,
		container: h,
		streams:   s,
		feed:      func() {},
	}
	if s.Stdin != nil {
		stdin, err := c.openStdin(id)
		if err != nil {
			return err
		}
		defer stdin.Close()

		a.feed = sync.OnceFunc(func() { go c.feed(ctx, h, stdin, s.Stdin) })
	}

	// Each turn is one life of the monitor.
	for {
		again, err := a.copyOutput(ctx)
		if err != nil || !again {
			return err
		}
	}
}

// attachment is one call of Attach.
type attachment struct {
	client    *Client
	container *container
	streams   Streams

	// feed starts to copy the input. It is called once output is attached, because what the container answers
	// to the input must not be missed. Repeating it changes nothing.
	feed func()
}

// copyOutput copies output until the container has ended, or until the monitor has died: then again is true.
func (a *attachment) copyOutput(ctx context.Context) (again bool, err error) {
	l, err := a.client.keeper.connected(ctx)
	if err != nil {
		return false, err
	}

	pipes, err := a.openPipes()
	defer pipes.close()

	if err != nil {
		return false, fmt.Errorf("attach to container %s: %w", a.container.status.ID, err)
	}

	// The monitor writes to the pipes from the answer on.
	m := wire.Message{Op: wire.OpAttach, ID: a.container.status.ID}
	_, got, err := l.call(ctx, m, pipes.files())
	got.Close()
	switch {
	case errors.Is(err, errLost):
		return true, nil
	case errors.Is(err, ErrExited):
		return false, nil
	case err != nil:
		return false, err
	}

	a.feed()
	if err := pipes.copy(ctx); err != nil {
		return false, err
	}

	// Without output to copy, only the ends are waited for.
	if len(pipes) == 0 {
		select {
		case <-a.container.done:
		case <-l.lost:
		case <-ctx.Done():
		}
	}

	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}

	return a.monitorDied(l), nil
}

// endGrace is how long the event of an exit may take after the end of the output.
const endGrace = 200 * time.Millisecond

// monitorDied finds out, after the output has ended, whether that is because the monitor died. If neither it
// nor the container ended, the container has closed its output and runs on.
func (a *attachment) monitorDied(l *link) bool {
	select {
	case <-a.container.done:
		return false
	case <-l.lost:
		return true
	case <-time.After(endGrace):
		return false
	}
}

// pipe carries one output of the container to a writer of the caller.
type pipe struct {
	name  string // of the descriptor in the protocol
	to    io.Writer
	read  *os.File
	write *os.File
}

type pipes []*pipe

// openPipes makes a pipe for each output that the caller wants. Those that were made are returned on an
// error, too.
func (a *attachment) openPipes() (pipes, error) {
	var all pipes
	for _, p := range []*pipe{
		{name: wire.FdOut, to: a.streams.Stdout},
		{name: wire.FdErr, to: a.streams.Stderr},
	} {
		if p.to == nil {
			continue
		}

		var err error
		p.read, p.write, err = os.Pipe()
		if err != nil {
			return all, err
		}

		all = append(all, p)
	}

	return all, nil
}

// files are the ends that the monitor writes to.
func (ps pipes) files() wire.Files {
	files := wire.Files{}
	for _, p := range ps {
		files[p.name] = fdOf(p.write)
	}
	return files
}

// copy copies until the monitor has closed its ends, a writer fails, or ctx ends.
func (ps pipes) copy(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		for _, p := range ps {
			p.read.Close()
		}
	})
	defer stop()

	var copying sync.WaitGroup
	errs := make([]error, len(ps))
	for i, p := range ps {
		copying.Go(func() {
			// Only the monitor's copies hold the pipe open now.
			p.write.Close()
			_, err := io.Copy(p.to, p.read)
			if !errors.Is(err, os.ErrClosed) {
				errs[i] = err
			}
		})
	}

	copying.Wait()

	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	return errors.Join(errs...)
}

func (ps pipes) close() {
	for _, p := range ps {
		p.read.Close()
		p.write.Close()
	}
}

// feed copies the caller's input to the container. The end of the input is the end of a StdinOnce container's
// stdin.
func (c *Client) feed(ctx context.Context, h *container, stdin *os.File, from io.Reader) {
	stop := context.AfterFunc(ctx, func() { stdin.Close() })
	defer stop()

	// An error says that the container does not read any more.
	_, _ = io.Copy(stdin, from)
	stdin.Close()

	if h.status.StdinOnce && !h.status.TTY {
		if err := c.closeStdin(context.WithoutCancel(ctx), h.status.ID); err != nil {
			c.cfg.Log.Warn("stdin of container is not closed", "container", h.status.ID, "err", err)
		}
	}
}

// closeStdinTimeout bounds the wait for a monitor that is being started again.
const closeStdinTimeout = 30 * time.Second

// closeStdin closes all writing ends but the container's own, which a StdinOnce container does not have.
func (c *Client) closeStdin(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, closeStdinTimeout)
	defer cancel()

	err := c.containers.with(id, func(h *container) error {
		if h.stdin >= 0 {
			unix.Close(h.stdin)
			h.stdin = -1
		}

		return nil
	})
	if err != nil {
		return err
	}

	return c.keeper.request(ctx, wire.Message{Op: wire.OpCloseStdin, ID: id})
}

// openStdin opens the way to the container's stdin: its FIFO, or a copy of its terminal.
func (c *Client) openStdin(id string) (stdin *os.File, err error) {
	err = c.containers.with(id, func(h *container) error {
		switch {
		case h.exited():
			return fmt.Errorf("attach to container %s: %w", id, ErrExited)
		case !h.status.Stdin:
			return fmt.Errorf("container %s was made without stdin", id)
		case h.status.TTY && h.tty < 0:
			return fmt.Errorf("terminal of container %s is lost: monitor and server were dead at once", id)
		case h.status.TTY:
			stdin, err = copyTerminal(h.tty)
		case h.status.StdinOnce && h.stdin < 0:
			return fmt.Errorf("stdin of container %s is closed (stdinOnce)", id)
		default:
			stdin, err = openFIFO(filepath.Join(wire.ContainerDir(c.cfg.StateDir, id), wire.StdinFIFO))
		}

		if err != nil {
			return fmt.Errorf("stdin of container %s: %w", id, err)
		}

		return nil
	})

	return stdin, err
}

func copyTerminal(tty int) (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(tty), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

func openFIFO(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

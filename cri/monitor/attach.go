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

// Streams are the client's ends of an attach; each may be nil. With a terminal everything comes on Stdout.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Attach connects s with a container's streams, from now on, until the container ends, a writer of s fails,
// or ctx ends. If the monitor dies, Attach attaches again to the next one; what the container wrote in
// between is in its log only.
func (c *Client) Attach(ctx context.Context, id string, s Streams) error {
	h, err := c.lookup(id)
	if err != nil {
		return err
	}

	select {
	case <-h.done:
		return fmt.Errorf("attach to container %s: %w", id, ErrExited)
	default:
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	attached := func() {}
	if s.Stdin != nil {
		stdin, err := c.openStdin(h)
		if err != nil {
			return err
		}
		defer stdin.Close()
		// Only once output is attached: what the container answers to the input must not be missed.
		attached = sync.OnceFunc(func() { go c.feed(ctx, h, stdin, s.Stdin) })
	}

	for {
		again, err := c.attachOnce(ctx, h, s, attached)
		if !again || err != nil {
			return err
		}
	}
}

// attachOnce copies output until the container ends (again is false) or the monitor died (again is true). It
// calls attached when no more output can be missed.
func (c *Client) attachOnce(
	ctx context.Context,
	h *held,
	s Streams,
	attached func(),
) (again bool, err error) {
	l, err := c.connected(ctx)
	if err != nil {
		return false, err
	}

	files, copies := wire.Files{}, []func() error{}
	var readers []*os.File
	defer func() {
		for _, r := range readers {
			r.Close()
		}
	}()

	for name, w := range map[string]io.Writer{wire.FdOut: s.Stdout, wire.FdErr: s.Stderr} {
		if w == nil {
			continue
		}

		read, write, err := os.Pipe()
		if err != nil {
			files.Close()
			return false, fmt.Errorf("attach to container %s: %w", h.status.ID, err)
		}

		defer write.Close()

		readers = append(readers, read)
		files[name] = fdOf(write)
		copies = append(copies, func() error { write.Close(); return drain(w, read) })
	}

	_, got, err := l.call(ctx, wire.Message{Op: wire.OpAttach, ID: h.status.ID}, files, nil)
	got.Close()
	switch {
	case errors.Is(err, errLost):
		return true, nil
	case errors.Is(err, ErrExited):
		return false, nil
	case err != nil:
		return false, err
	}

	attached()
	stop := context.AfterFunc(ctx, func() {
		for _, r := range readers {
			r.Close()
		}
	})
	defer stop()

	var wg sync.WaitGroup
	errs := make([]error, len(copies))
	for i, f := range copies {
		wg.Go(func() { errs[i] = f() })
	}

	if len(copies) == 0 {
		select {
		case <-h.done:
		case <-l.lost:
		case <-ctx.Done():
		}
	}

	wg.Wait()
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if err := errors.Join(errs...); err != nil {
		return false, err
	}

	return c.lives(h, l), nil
}

// lives decides, after the output has ended, whether the container did or the monitor.
func (c *Client) lives(h *held, l *link) bool {
	select {
	case <-h.done:
		return false
	case <-l.lost:
		return true
	case <-time.After(200 * time.Millisecond):
		// the container has closed its output but runs on
		return false
	}
}

// drain copies; a closed reader is the way to end it.
func drain(w io.Writer, r *os.File) error {
	_, err := io.Copy(w, r)
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// feed copies the client's stdin to the container. The end of it is the end of a StdinOnce container's stdin.
func (c *Client) feed(ctx context.Context, h *held, stdin *os.File, from io.Reader) {
	stop := context.AfterFunc(ctx, func() { stdin.Close() })
	defer stop()

	// ends with the client's input, or when the container reads no more
	io.Copy(stdin, from)
	stdin.Close()
	if h.status.StdinOnce && !h.status.TTY {
		if err := c.closeStdin(context.WithoutCancel(ctx), h); err != nil {
			c.log.Warn("stdin of container is not closed", "container", h.status.ID, "err", err)
		}
	}
}

// closeStdin gives up all writing ends but the container's own, which a StdinOnce container has not.
func (c *Client) closeStdin(ctx context.Context, h *held) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c.mu.Lock()
	if h.stdin >= 0 {
		unix.Close(h.stdin)
		h.stdin = -1
	}
	c.mu.Unlock()
	return c.simple(ctx, wire.Message{Op: wire.OpCloseStdin, ID: h.status.ID}, nil)
}

// openStdin opens the way to the container's stdin: its FIFO, or a copy of its terminal.
func (c *Client) openStdin(h *held) (*os.File, error) {
	id := h.status.ID
	c.mu.Lock()
	defer c.mu.Unlock()

	switch {
	case h.exited():
		return nil, fmt.Errorf("attach to container %s: %w", id, ErrExited)
	case !h.status.Stdin:
		return nil, fmt.Errorf("container %s was made without stdin", id)
	case h.status.TTY && h.tty >= 0:
		fd, err := unix.FcntlInt(uintptr(h.tty), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, fmt.Errorf("terminal of container %s: %w", id, err)
		}

		return os.NewFile(uintptr(fd), "terminal"), nil

	case h.status.TTY:
		return nil, fmt.Errorf("terminal of container %s is lost: monitor and server were dead at once", id)
	case h.status.StdinOnce && h.stdin < 0:
		return nil, fmt.Errorf("stdin of container %s is closed (stdinOnce)", id)
	}

	path := filepath.Join(wire.ContainerDir(c.cfg.StateDir, id), wire.StdinFIFO)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("stdin of container %s: %w", id, err)
	}

	return os.NewFile(uintptr(fd), path), nil
}

package streaming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/trivet-node/trivet/cri/monitor"
)

// adapter is the Server as k8s.io/cri-streaming wants it.
type adapter Server

// Exec runs a command with the client's streams. A command that fails gives an exitError, from which the
// library takes the exit code. One without a terminal outlives its client, as with containerd, but nothing
// of ours does: its output is a broken pipe then, and its input at its end.
func (a *adapter) Exec(
	ctx context.Context,
	containerID string,
	cmd []string,
	in io.Reader,
	out, errOut io.WriteCloser,
	tty bool,
	resize <-chan remotecommand.TerminalSize,
) error {
	process, err := a.cfg.Process(ctx, containerID)
	if err != nil {
		return err
	}

	process.Args, process.Terminal = cmd, tty
	if tty {
		process.Env = withTerm(process.Env)
	}

	run := &execution{client: a.cfg.Monitor, config: monitor.ExecConfig{ID: containerID, Process: process}}
	var exit monitor.Exit
	if tty {
		exit, err = run.withTerminal(ctx, in, out, resize)
	} else {
		exit, err = run.withPipes(ctx, in, out, errOut)
	}

	switch {
	case ctx.Err() != nil:
		// nobody is there to be told
		return nil
	case err != nil:
		return err
	case exit.Unknown:
		return fmt.Errorf("command in container %s ended, but nobody saw how", containerID)
	case exit.Code != 0:
		return exitError{exit}
	}

	return nil
}

// withTerm adds what every terminal program asks for.
func withTerm(env []string) []string {
	for _, e := range env {
		if strings.HasPrefix(e, "TERM=") {
			return env
		}
	}
	return append(env[:len(env):len(env)], "TERM=xterm")
}

type execution struct {
	client *monitor.Client
	config monitor.ExecConfig
}

// withTerminal connects the client with the terminal's master until the process has ended and its last output
// is out.
func (x *execution) withTerminal(
	ctx context.Context,
	in io.Reader,
	out io.Writer,
	resize <-chan remotecommand.TerminalSize,
) (monitor.Exit, error) {
	e, err := x.client.Exec(ctx, x.config)
	if err != nil {
		return monitor.Exit{}, err
	}
	defer e.Close()

	var input, sizes, shown sync.WaitGroup
	over := make(chan struct{})
	if in != nil {
		input.Go(func() { io.Copy(e.Terminal, in) })
	}

	sizes.Go(func() {
		for {
			select {
			case size, open := <-resize:
				if !open {
					return
				}

				e.Resize(size.Width, size.Height)

			case <-over:
				return
			}
		}
	})

	// the client is
	gone := make(chan struct{})
	if in != nil && resize != nil {
		go func() { input.Wait(); sizes.Wait(); close(gone) }()
	}

	shown.Go(func() {
		if out != nil {
			// ends with EIO when no process has the terminal open any more
			io.Copy(out, &output{f: e.Terminal})
		}
	})

	exit, err := waitOrGone(ctx, e, gone)
	close(over)
	if err != nil {
		// Close hangs the terminal up
		return exit, err
	}

	ended(e.Terminal)
	shown.Wait()
	return exit, nil
}

// waitOrGone waits for the process, or until the client is gone: then the process is hung up on, as on a lost
// terminal line.
func waitOrGone(ctx context.Context, e *monitor.Exec, gone <-chan struct{}) (monitor.Exit, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	stop := make(chan struct{})
	defer close(stop)

	go func() {
		select {
		case <-gone:
			cancel(errClientGone)
		case <-stop:
		}
	}()

	return e.Wait(ctx)
}

var errClientGone = errors.New("client has gone")

// withPipes connects the client by pipes until the process has ended and its output is out.
func (x *execution) withPipes(
	ctx context.Context,
	in io.Reader,
	out, errOut io.Writer,
) (monitor.Exit, error) {
	var theirs, ours []*os.File
	closeAll := func(files []*os.File) {
		for _, f := range files {
			f.Close()
		}
	}
	defer func() { closeAll(theirs); closeAll(ours) }()

	pipe := func() (r, w *os.File, err error) {
		if r, w, err = os.Pipe(); err != nil {
			return nil, nil, fmt.Errorf("exec in container %s: %w", x.config.ID, err)
		}

		return r, w, nil
	}

	var copies []func()
	if in != nil {
		r, w, err := pipe()
		if err != nil {
			return monitor.Exit{}, err
		}

		theirs, ours, x.config.Stdin = append(theirs, r), append(ours, w), r

		// ends when the process reads no more or the client closes
		go func() { io.Copy(w, in); w.Close() }()
	}

	for _, o := range []struct {
		to  io.Writer
		end **os.File
	}{{out, &x.config.Stdout}, {errOut, &x.config.Stderr}} {
		if o.to == nil {
			continue
		}

		r, w, err := pipe()
		if err != nil {
			return monitor.Exit{}, err
		}

		theirs, ours = append(theirs, w), append(ours, r)
		*o.end = w

		// a client that is gone is a broken pipe to the process
		copies = append(copies, func() { io.Copy(o.to, &output{f: r}); r.Close() })
	}

	// With ctx, the command would be killed when the client goes while it is started.
	e, err := x.client.Exec(context.WithoutCancel(ctx), x.config)
	if err != nil {
		return monitor.Exit{}, err
	}
	defer e.Close()

	closeAll(theirs)
	var copied sync.WaitGroup
	for _, f := range copies {
		copied.Go(f)
	}

	exit, err := e.Wait(ctx)
	if err != nil {
		return exit, fmt.Errorf("exec in container %s: %w", x.config.ID, err)
	}

	for _, f := range ours {
		ended(f)
	}

	copied.Wait()
	return exit, nil
}

// exitError is a k8s.io/utils/exec.ExitError: how a command that ran has failed.
type exitError struct{ exit monitor.Exit }

func (e exitError) Error() string   { return e.exit.String() }
func (e exitError) String() string  { return e.exit.String() }
func (e exitError) Exited() bool    { return true }
func (e exitError) ExitStatus() int { return e.exit.Code }

package streaming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/trivet-node/trivet/cri/monitor"
)

// adapter is the Server as k8s.io/cri-streaming wants it.
type adapter Server

// Exec runs a command with the client's streams; see Server.runExec.
func (a *adapter) Exec(
	ctx context.Context,
	containerID string,
	cmd []string,
	in io.Reader,
	out, errOut io.WriteCloser,
	tty bool,
	resize <-chan remotecommand.TerminalSize,
) error {
	streams := clientStreams{
		in:     in,
		out:    out,
		errOut: errOut,
		tty:    tty,
		resize: resize,
	}
	return (*Server)(a).runExec(ctx, containerID, cmd, streams)
}

// clientStreams are what a client sends to and gets from a process. in, out and errOut are nil interfaces if
// the client did not ask for them.
type clientStreams struct {
	in          io.Reader
	out, errOut io.Writer

	// tty says that the process has a terminal, whose sizes come from resize.
	tty    bool
	resize <-chan remotecommand.TerminalSize
}

// runExec runs a command with the client's streams. A command that fails gives an exitError, from which the
// library takes the exit code. One without a terminal outlives its client, as with containerd, but nothing of
// the server's does: its output is a broken pipe then, and its input at its end.
func (s *Server) runExec(ctx context.Context, id string, cmd []string, streams clientStreams) error {
	process, err := s.cfg.Containers.Process(ctx, id)
	if err != nil {
		return err
	}

	process.Args = cmd
	process.Terminal = streams.tty
	if streams.tty {
		process.Env = withTerm(process.Env)
	}

	run := &execution{
		processes: s.cfg.Processes,
		config:    monitor.ExecConfig{ID: id, Process: process},
		client:    streams,
	}

	var exit monitor.Exit
	if streams.tty {
		exit, err = run.withTerminal(ctx)
	} else {
		exit, err = run.withPipes(ctx)
	}

	switch {
	case ctx.Err() != nil:
		// The client is gone.
		return nil
	case err != nil:
		return err
	case exit.Unknown:
		return fmt.Errorf("command in container %s ended, but nobody saw how", id)
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
	return append(slices.Clip(env), "TERM=xterm")
}

// execution is one command that a client runs.
type execution struct {
	processes Processes
	config    monitor.ExecConfig
	client    clientStreams
}

// withTerminal connects the client with the terminal's master until the process has ended and its last output
// is out, or the client is gone.
func (x *execution) withTerminal(ctx context.Context) (monitor.Exit, error) {
	e, err := x.processes.Exec(ctx, x.config)
	if err != nil {
		return monitor.Exit{}, err
	}

	// This also hangs up the terminal of a process that still runs.
	defer e.Close()

	var input, sizes, output sync.WaitGroup
	over := make(chan struct{})
	if x.client.in != nil {
		// It fails when the terminal is closed, after the process has ended.
		input.Go(func() { _, _ = io.Copy(e.Terminal, x.client.in) })
	}

	sizes.Go(func() { x.resize(e, over) })
	if x.client.out != nil {
		// It ends with EIO when no process has the terminal open any more.
		output.Go(func() { _, _ = io.Copy(x.client.out, &processOutput{f: e.Terminal}) })
	}

	// A client that sends neither input nor sizes any more has closed its connection.
	clientGone := make(chan struct{})
	if x.client.in != nil && x.client.resize != nil {
		go func() {
			input.Wait()
			sizes.Wait()
			close(clientGone)
		}()
	}

	exit, err := waitForExit(ctx, e, clientGone)
	close(over)
	if err != nil {
		return exit, err
	}

	limitOutput(e.Terminal)
	output.Wait()
	return exit, nil
}

// resize sets the terminal's sizes until the client sends no more or over is closed.
func (x *execution) resize(e *monitor.Exec, over <-chan struct{}) {
	for {
		select {
		case size, open := <-x.client.resize:
			if !open {
				return
			}

			// It fails for a process that has just ended.
			_ = e.Resize(size.Width, size.Height)
		case <-over:
			return
		}
	}
}

// errClientGone ends the wait for a process whose client is gone.
var errClientGone = errors.New("client is gone")

// waitForExit waits until the process has ended or its client is gone.
func waitForExit(ctx context.Context, e *monitor.Exec, clientGone <-chan struct{}) (monitor.Exit, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	exited := make(chan struct{})
	defer close(exited)

	go func() {
		select {
		case <-clientGone:
			cancel(errClientGone)
		case <-exited:
		}
	}()

	return e.Wait(ctx)
}

// withPipes connects the client by pipes until the process has ended and its output is out.
func (x *execution) withPipes(ctx context.Context) (monitor.Exit, error) {
	var p pipes
	defer p.close()

	var err error
	if x.config.Stdin, err = p.input(x.client.in); err != nil {
		return monitor.Exit{}, err
	}
	if x.config.Stdout, err = p.output(x.client.out); err != nil {
		return monitor.Exit{}, err
	}
	if x.config.Stderr, err = p.output(x.client.errOut); err != nil {
		return monitor.Exit{}, err
	}

	// With ctx, a command whose client goes while it is started would be killed.
	e, err := x.processes.Exec(context.WithoutCancel(ctx), x.config)
	if err != nil {
		return monitor.Exit{}, err
	}
	defer e.Close()

	p.start()
	exit, err := e.Wait(ctx)
	if err != nil {
		return exit, fmt.Errorf("exec in container %s: %w", x.config.ID, err)
	}

	p.finish()
	return exit, nil
}

// exitError is how a command that ran has failed, in the terms of k8s.io/utils/exec.ExitError.
type exitError struct{ exit monitor.Exit }

// Error returns the exit in words.
func (e exitError) Error() string { return e.exit.String() }

// String returns the exit in words.
func (e exitError) String() string { return e.exit.String() }

// Exited returns true: a signal is an exit, too.
func (e exitError) Exited() bool { return true }

// ExitStatus returns the exit code.
func (e exitError) ExitStatus() int { return e.exit.Code }

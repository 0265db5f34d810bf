package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// startTimeout bounds how long a monitor may take until it answers.
const startTimeout = 10 * time.Second

// dialOrStart connects to the monitor and starts it first if nobody answers. If two clients start one at the
// same time, the second monitor finds the socket locked and ends.
func dialOrStart(ctx context.Context, cfg Config) (*wire.Conn, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if conn, err := wire.Dial(cfg.Socket); err == nil {
		return conn, nil
	}

	ready, err := start(cfg)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Program, err)
	}
	defer ready.Close()

	// The wait does not end with ctx: a caller that stops waiting must leave a monitor that is there, and not
	// one that comes up later. What is read is the ready line; the end of file says that the monitor has
	// ended.
	if err := ready.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return nil, err
	}

	said := make([]byte, 4096)
	n, readErr := ready.Read(said)

	conn, err := wire.Dial(cfg.Socket)
	if err == nil {
		return conn, nil
	}
	if n > 0 {
		return nil, fmt.Errorf("%s did not start: %s", cfg.Program, said[:n])
	}

	err = errors.Join(readErr, err, context.Cause(ctx))
	return nil, fmt.Errorf("%s did not start (its log says why): %w", cfg.Program, err)
}

// start starts the monitor detached, in a session of its own, and returns a pipe to which it writes when it
// is ready.
func start(cfg Config) (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer write.Close()

	log := os.Stderr
	if cfg.LogFile != "" {
		log, err = os.OpenFile(cfg.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			read.Close()
			return nil, err
		}

		defer log.Close()
	}

	args := append(
		[]string{"--socket", cfg.Socket, "--state-dir", cfg.StateDir, "--ready-fd", "3"},
		cfg.Args...,
	)

	cmd := exec.Command(cfg.Program, args...)
	cmd.Stderr = log
	cmd.Stdout = log
	cmd.ExtraFiles = []*os.File{write}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		read.Close()
		return nil, err
	}

	// It is reaped here if it dies before this process, else by the reaper of this process. How it ended is
	// nothing that this process acts on.
	go func() { _ = cmd.Wait() }()
	return read, nil
}

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

// dialOrStart connects to the monitor and starts it first if nobody answers. Two that start it at once are no
// harm: the second monitor finds the socket locked and ends.
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

	ready.SetReadDeadline(time.Now().Add(startTimeout))
	// Not cut short by ctx: whoever gives up must leave a monitor that is there, not one that comes up later.
	said := make([]byte, 4096)

	// its ready line, or end of file when it ended
	n, readErr := ready.Read(said)
	conn, err := wire.Dial(cfg.Socket)
	if err == nil {
		return conn, nil
	}
	if n > 0 {
		return nil, fmt.Errorf("%s did not start: %s", cfg.Program, said[:n])
	}

	return nil, fmt.Errorf("%s did not start (its log says why): %w",
		cfg.Program, errors.Join(readErr, err, context.Cause(ctx)))
}

// start starts the monitor detached, in a session of its own, and returns a pipe on which it tells that it is
// ready. Whoever is the caller's reaper reaps it too if the caller is gone by then.
func start(cfg Config) (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer write.Close()

	log := os.Stderr
	if cfg.LogFile != "" {
		if log, err = os.OpenFile(cfg.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_CLOEXEC, 0o640); err != nil {
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
	cmd.Stderr, cmd.Stdout = log, log
	cmd.ExtraFiles = []*os.File{write}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		read.Close()
		return nil, err
	}

	// reaps it should it die before this process
	go cmd.Wait()
	return read, nil
}

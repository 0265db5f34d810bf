package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/trivet-node/trivet/internal/program"
)

// downLimit bounds how long it takes until the cluster is down; leaksLimit is how long the kernel may take to
// take apart what it leaves.
const (
	downLimit  = 2 * time.Minute
	leaksLimit = "--wait=30s"
)

// onOwnCluster calls f while a cluster of its own is up. It begins with what a killed run has left, and
// whatever happens to f, nothing is left in the end.
func (o *options) onOwnCluster(ctx context.Context, f func() error) error {
	if err := program.RequireRoot(); err != nil {
		return err
	}
	if err := o.trivetCluster(ctx, "down"); err != nil {
		return err
	}

	err := o.trivetCluster(ctx, "up", o.up...)
	if err == nil {
		err = f()
	}

	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
	defer cancel()

	err = errors.Join(err, o.trivetCluster(ending, "down"))
	return errors.Join(err, o.trivetCluster(ending, "leaks", leaksLimit))
}

// trivetCluster runs trivet-cluster for the cluster in dir.
func (o *options) trivetCluster(ctx context.Context, verb string, flags ...string) error {
	args := append([]string{verb, "--dir=" + o.dir}, flags...)
	cmd := exec.CommandContext(ctx, filepath.Join(o.programs, "trivet-cluster"), args...)
	cmd.Stdout, cmd.Stderr = o.env.Stdout, o.env.Stderr

	// Ctrl-C is for this process, which then has the cluster taken down.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = downLimit
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("trivet-cluster %s: %w", verb, err)
	}

	return nil
}

package ociruntime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Runner runs the verbs of OCI runtimes that need no parenthood of the container's process. Its zero value
// is ready; it may be used by many goroutines. It holds the sealed copies of runtimes (Executable) for as
// long as the process lives, so a process has one Runner.
type Runner struct {
	sealed copies
}

// Start starts the user's program of a created container.
func (r *Runner) Start(ctx context.Context, rt Runtime, id string) error {
	_, err := r.run(ctx, rt, command{verb: "start", id: id})
	return err
}

// Delete kills what is left of the container and removes the runtime's state and cgroup. A container that
// the runtime does not know is success.
func (r *Runner) Delete(ctx context.Context, rt Runtime, id string) error {
	_, err := r.run(ctx, rt, command{verb: "delete", flags: []string{"--force"}, id: id})
	if err != nil && IsNotFound(err) {
		return nil
	}
	return err
}

// Update changes the resources of a live container.
func (r *Runner) Update(ctx context.Context, rt Runtime, id string, resources *specs.LinuxResources) error {
	data, err := json.Marshal(resources)
	if err != nil {
		return fmt.Errorf("encode resources of %s: %w", id, err)
	}

	_, err = r.run(ctx, rt, command{
		verb:  "update",
		flags: []string{"--resources", "/proc/self/fd/0"},
		id:    id,
		stdin: data,
	})

	return err
}

// State returns the container's state. The error is os.ErrNotExist if the runtime does not know the
// container.
func (r *Runner) State(ctx context.Context, rt Runtime, id string) (specs.State, error) {
	var state specs.State
	out, err := r.run(ctx, rt, command{verb: "state", id: id})
	if err != nil {
		if IsNotFound(err) {
			return state, fmt.Errorf("container %s: %w", id, os.ErrNotExist)
		}

		return state, err
	}

	if err := json.Unmarshal(out, &state); err != nil {
		return state, fmt.Errorf("state of container %s: %w", id, err)
	}

	return state, nil
}

// command is a verb with its flags and standard input.
type command struct {
	verb, id string
	flags    []string
	stdin    []byte
}

// run runs a command, waits for it and returns its standard output. A runtime that outlives this process
// finishes what it was asked for; all verbs here may be repeated.
func (r *Runner) run(ctx context.Context, rt Runtime, c command) ([]byte, error) {
	path, err := r.Executable(rt)
	if err != nil {
		return nil, err
	}

	call, err := rt.NewCall(c.verb, c.id)
	if err != nil {
		return nil, err
	}
	defer call.Close()

	cmd := exec.CommandContext(ctx, path)
	cmd.Args = append(append(append(rt.global(), c.verb), c.flags...), c.id)
	var stdout, stderr bytes.Buffer
	cmd.Stdin = bytes.NewReader(c.stdin)
	cmd.Stdout = &stdout
	cmd.Stderr = &stderr
	cmd.ExtraFiles = []*os.File{call.Log()}

	// What it has started ends with it: a runtime may be a script. What it leaves is not waited for.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err = cmd.Run(); err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return stdout.Bytes(), nil
	}

	if ctx.Err() != nil {
		return nil, call.Abandoned(context.Cause(ctx))
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		err = ExitCode(exit.ExitCode())
	}

	return nil, call.Failed(err, stderr.Bytes())
}

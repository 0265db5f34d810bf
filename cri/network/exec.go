package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/steplog"
	"github.com/trivet-node/trivet/internal/trace"
)

// tracedExec runs plugins. In a trace each run is a span, and a plugin that knows of it (trivet-cni) says how
// long its steps took.
type tracedExec struct{ version.PluginDecoder }

// FindInPath finds a plugin (invoke.Exec).
func (e *tracedExec) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

// ExecPlugin runs a plugin (invoke.Exec).
func (e *tracedExec) ExecPlugin(
	ctx context.Context, plugin string, stdin []byte, environment []string,
) (result []byte, err error) {
	ctx, span := trace.Begin(ctx, "CNI "+filepath.Base(plugin))
	if span == nil {
		return run(ctx, plugin, stdin, environment)
	}

	environment = append(environment, "TRACEPARENT="+trace.Parent(ctx))
	steps, err := newSteps()
	if err == nil {
		environment = append(environment, steplog.Variable+"="+steps.Name())
		defer steps.Close()
	}

	result, err = run(ctx, plugin, stdin, environment)
	if steps != nil {
		addSteps(span, steps)
	}

	span.End(err)
	return result, err
}

// busyLimit is how long a plugin is waited for that somebody writes to, as who installs it may, and busyPause
// is between two attempts to run it.
const (
	busyLimit = 5 * time.Second
	busyPause = 100 * time.Millisecond
)

// run runs a plugin and returns what it prints.
func run(ctx context.Context, plugin string, stdin []byte, environment []string) ([]byte, error) {
	busy, cancel := context.WithTimeout(ctx, busyLimit)
	defer cancel()

	out, err := runOnce(ctx, plugin, stdin, environment)
	for errors.Is(err, unix.ETXTBSY) && retry.Sleep(busy, busyPause) == nil {
		out, err = runOnce(ctx, plugin, stdin, environment)
	}

	return out, err
}

// runOnce is one attempt. The library's own runner waits for all that holds the output open, when ctx has
// ended, too: for a plugin that the one which was killed has called, and that hangs.
func runOnce(ctx context.Context, plugin string, stdin []byte, environment []string) ([]byte, error) {
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, plugin)
	cmd.Env = environment
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stdout = &out
	cmd.Stderr = &said

	// What it has started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second

	err := cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		_, _ = said.WriteTo(os.Stderr)
		return out.Bytes(), nil
	}

	if errors.Is(err, unix.ETXTBSY) {
		return nil, err
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}

	return nil, failure(err, out.Bytes(), said.Bytes())
}

// failure is the error of a plugin that has failed, in the library's words.
func failure(err error, out, said []byte) error {
	e := &types.Error{}
	switch {
	case len(out) > 0:
		if broken := json.Unmarshal(out, e); broken != nil {
			const format = "netplugin failed but error parsing its diagnostic message %q: %v"
			e.Msg = fmt.Sprintf(format, out, broken)
		}

	case len(said) > 0:
		e.Msg = fmt.Sprintf("netplugin failed: %q: %v", said, err)
	default:
		e.Msg = fmt.Sprintf("netplugin failed with no error message: %v", err)
	}

	return e
}

// newSteps returns a file in memory whose name the plugin can open. It is gone with this process, whatever
// becomes of the plugin.
func newSteps() (*os.File, error) {
	fd, err := unix.MemfdCreate("cni-steps", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("file for the steps of a plugin: %w", err)
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)), nil
}

func addSteps(span *trace.Span, f *os.File) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return
	}
	for _, s := range steplog.Read(f) {
		span.Add(s.Name, s.Began, s.Ended)
	}
}

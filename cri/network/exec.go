package network

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/steplog"
	"github.com/trivet-node/trivet/internal/trace"
)

// tracedExec runs plugins as the CNI library does. In a trace each run is a span, and a plugin that knows of
// it (trivet-cni) says how long its steps took.
type tracedExec struct {
	*invoke.RawExec
	version.PluginDecoder
}

func newExec() *tracedExec { return &tracedExec{RawExec: &invoke.RawExec{Stderr: os.Stderr}} }

// ExecPlugin runs a plugin (invoke.Exec).
func (e *tracedExec) ExecPlugin(
	ctx context.Context, plugin string, stdin []byte, environment []string,
) (result []byte, err error) {
	ctx, span := trace.Begin(ctx, "CNI "+filepath.Base(plugin))
	if span == nil {
		return e.RawExec.ExecPlugin(ctx, plugin, stdin, environment)
	}

	environment = append(environment, "TRACEPARENT="+trace.Parent(ctx))
	steps, err := newSteps()
	if err == nil {
		environment = append(environment, steplog.Variable+"="+steps.Name())
		defer steps.Close()
	}

	result, err = e.RawExec.ExecPlugin(ctx, plugin, stdin, environment)
	if steps != nil {
		addSteps(span, steps)
	}

	span.End(err)
	return result, err
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

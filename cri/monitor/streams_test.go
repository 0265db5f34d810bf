package monitor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
)

// execute is an exec of a shell script in container a, and its stdout.
func (r *rootless) execute(t *testing.T, script string) (monitor.ExecConfig, *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		read.Close()
		write.Close()
	})
	program := monitortest.FakeBundle(t, filepath.Join(r.dir, "exec"), script) + "/program"
	return monitor.ExecConfig{ID: "a", Process: specs.Process{Args: []string{program}}, Stdout: write}, read
}

func TestAnExecsOutputAndExitReachTheCaller(t *testing.T) {
	r := newRootless(t)
	c := r.connect(t)
	r.create(t, c, "a", "exec sleep 1000")
	cfg, stdout := r.execute(t, "echo from the exec; exit 2")
	e, err := c.Exec(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()

	cfg.Stdout.Close()
	if said, err := io.ReadAll(stdout); err != nil || string(said) != "from the exec\n" {
		t.Errorf("stdout %q, %v", said, err)
	}
	if exit, err := e.Wait(t.Context()); err != nil || exit.Code != 2 {
		t.Errorf("exit %+v, %v; want code 2", exit, err)
	}
	if err := e.Resize(80, 25); err == nil {
		t.Error("an exec without a terminal was resized")
	}
}

// A runtime that waits for the process it starts leaves no status to its parent.
func TestTheExitOfAnExecThatItsRuntimeReapedIsUnknown(t *testing.T) {
	r := newRootless(t)
	script := fmt.Sprintf(`#!/bin/sh
for arg; do
	[ "$arg" != exec ] || exec=yes
	[ "$last" != --pid-file ] || pidfile=$arg
	last=$arg
done
[ "$exec" ] || exec %s "$@"
true &
echo $! >$pidfile
wait
`, r.runtime.Program)
	r.runtime.Program = filepath.Join(r.dir, "reaping-runtime")
	if err := os.WriteFile(r.runtime.Program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}

	c := r.connect(t)
	r.create(t, c, "a", "exec sleep 1000")
	cfg, _ := r.execute(t, "")
	e, err := c.Exec(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()

	if exit, err := e.Wait(t.Context()); err != nil || !exit.Unknown || exit.Code != monitor.UnknownCode {
		t.Errorf("exit %+v, %v; want an unknown one", exit, err)
	}
}

// The process inherits what its runtime has, and must not run before that is the value of its container. A
// process that is larger than a pipe must reach its runtime whole.
func TestAnExecHasTheOOMScoreOfItsContainer(t *testing.T) {
	r := newRootless(t)
	c := r.connect(t)
	r.create(t, c, "a", "exec sleep 1000", func(c *monitor.Container) { c.OOMScoreAdj = 500 })
	for range 20 {
		cfg, stdout := r.execute(t, "cat /proc/self/oom_score_adj")
		cfg.Process.Env = []string{"LARGE=" + strings.Repeat("x", 200<<10)}
		e, err := c.Exec(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}

		cfg.Stdout.Close()
		if said, err := io.ReadAll(stdout); err != nil || string(said) != "500\n" {
			t.Errorf("oom_score_adj %q, %v; want 500", said, err)
		}

		e.Close()
	}
}

func TestAKilledExecTakesItsChildrenAlong(t *testing.T) {
	r := newRootless(t)
	c := r.connect(t)
	r.create(t, c, "a", "exec sleep 1000")
	cfg, stdout := r.execute(t, "sleep 1000 & echo up; wait")
	e, err := c.Exec(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()

	cfg.Stdout.Close()
	if _, err := stdout.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}

	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(stdout); len(rest) > 0 || err != nil {
		t.Errorf("after the kill: %q, %v", rest, err)
	}
	if exit, err := e.Wait(t.Context()); err != nil || exit.Signal != unix.SIGKILL {
		t.Errorf("exit %+v, %v; want one by SIGKILL", exit, err)
	}
}

func TestAnAttachedClientTalksWithAContainer(t *testing.T) {
	r := newRootless(t)
	c := r.connect(t)
	r.create(t, c, "a", `read line; echo "got $line"; echo more >&2`, withStdin)
	startIt(t, c, "a")
	var stdout, stderr bytes.Buffer
	err := c.Attach(t.Context(), "a", monitor.Streams{
		Stdin:  strings.NewReader("hello\n"),
		Stdout: &stdout,
		Stderr: &stderr,
	})
	if err != nil || stdout.String() != "got hello\n" || stderr.String() != "more\n" {
		t.Errorf("%v; stdout %q, stderr %q", err, stdout.String(), stderr.String())
	}
}

type brokenWriter struct{}

var errBroken = errors.New("the caller's connection is broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestAnAttachEndsWithItsContextOrItsWriter(t *testing.T) {
	r := newRootless(t)
	c := r.connect(t)
	r.create(t, c, "a", "while read line; do echo $line; done", func(c *monitor.Container) { c.Stdin = true })
	startIt(t, c, "a")
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the caller is gone")
	cancel(gone)
	if err := c.Attach(ctx, "a", monitor.Streams{Stdout: io.Discard}); !errors.Is(err, gone) {
		t.Errorf("with a context that has ended: %v", err)
	}

	streams := monitor.Streams{Stdin: strings.NewReader("hello\n"), Stdout: brokenWriter{}}
	if err := c.Attach(t.Context(), "a", streams); !errors.Is(err, errBroken) {
		t.Errorf("with a writer that fails: %v", err)
	}
}

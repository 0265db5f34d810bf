package monitor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
)

// setup connects to a fresh monitor.
func setup(t *testing.T) (*monitortest.Env, *monitor.Client) {
	t.Helper()
	e := monitortest.New(t)
	return e, connect(t, e)
}

func connect(t *testing.T, e *monitortest.Env) *monitor.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := monitor.Connect(ctx, e.Config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// run creates and starts a container and deletes it at the end of the test.
func run(t *testing.T, c *monitor.Client, want monitor.Container) {
	t.Helper()
	start(t, c, want)
	t.Cleanup(func() {
		if err := c.Delete(context.WithoutCancel(t.Context()), want.ID); err != nil {
			t.Errorf("delete %s: %v", want.ID, err)
		}
	})
}

func start(t *testing.T, c *monitor.Client, want monitor.Container) {
	t.Helper()
	if _, err := c.Create(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context(), want.ID); err != nil {
		t.Fatal(err)
	}
}

// checkCode checks the exit of a container whose monitor was killed: a kernel that keeps no status of what
// was reaped leaves it unknown at times.
func checkCode(t *testing.T, exit monitor.Exit, want int) {
	t.Helper()
	if exit.Unknown && !monitortest.KernelKeepsExits(t) {
		t.Logf("exit of %s is unknown to this kernel", exit.ID)
	} else if exit.Code != want || exit.Unknown {
		t.Errorf("exit %+v, want code %d", exit, want)
	}
}

func wait(t *testing.T, c *monitor.Client, id string) monitor.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	exit, err := c.Wait(ctx, id)
	if err != nil {
		t.Fatalf("wait for %s: %v", id, err)
	}
	return exit
}

// runtimes runs a test with each OCI runtime.
func runtimes(t *testing.T, f func(t *testing.T, runtime string)) {
	for _, name := range []string{"crun", "runc"} {
		t.Run(name, func(t *testing.T) { f(t, name) })
	}
}

// count prints numbered lines and exits with code.
func count(prefix string, lines, code int) []string {
	return sh(fmt.Sprintf("awk 'BEGIN { for (i = 1; i <= %d; i++) print \"%s\", i }'; exit %d",
		lines, prefix, code))
}

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

func TestExitCodesSignalsAndLogs(t *testing.T) {
	runtimes(t, func(t *testing.T, name string) {
		e, c := setup(t)
		rt := e.Runtime(t, name)
		a := e.Container(t, "a", rt, sh("echo out; echo err >&2; printf 'no newline'; exit 7"), nil)
		run(t, c, a)
		if exit := wait(t, c, "a"); exit.Code != 7 || exit.Signal != 0 || exit.Unknown || exit.OOM {
			t.Errorf("exit %+v, want code 7", exit)
		}
		if got := monitortest.LogText(t, a.LogPath, "stdout"); got != "out\nno newline" {
			t.Errorf("stdout %q", got)
		}
		if got := monitortest.LogText(t, a.LogPath, "stderr"); got != "err\n" {
			t.Errorf("stderr %q", got)
		}

		b := e.Container(t, "b", rt, sh("trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"), nil)
		run(t, c, b)
		k := e.Container(t, "k", rt, []string{"/bin/sleep", "1000"}, nil)
		run(t, c, k)
		monitortest.Eventually(t, func() error {
			if data, err := os.ReadFile(b.LogPath); err != nil || len(data) == 0 {
				return errors.Join(errors.New("no output yet"), err)
			}

			return nil
		})
		if err := c.Kill("b", unix.SIGTERM); err != nil {
			t.Error(err)
		}
		if exit := wait(t, c, "b"); exit.Code != 5 {
			t.Errorf("exit %+v, want code 5", exit)
		}
		if err := c.Kill("k", unix.SIGKILL); err != nil {
			t.Error(err)
		}
		if exit := wait(t, c, "k"); exit.Code != 137 || exit.Signal != unix.SIGKILL {
			t.Errorf("exit %+v, want SIGKILL", exit)
		}

		reported := map[string]int{}
		for range 3 {
			reported[(<-c.Exits()).ID]++
		}

		if len(reported) != 3 {
			t.Errorf("exits reported: %v", reported)
		}
	})
}

func TestFailedCreateIsClearAndLeavesNothing(t *testing.T) {
	runtimes(t, func(t *testing.T, name string) {
		e, c := setup(t)
		bad := e.Container(t, "bad", e.Runtime(t, name), []string{"/bin/absent"}, nil)
		_, err := c.Create(t.Context(), bad)

		// crun looks for the program at start only.
		if err == nil {
			err = c.Start(t.Context(), "bad")
		}
		if err == nil || !strings.Contains(err.Error(), "absent") {
			t.Errorf("error %v does not name the program", err)
		}
		if err := c.Delete(t.Context(), "bad"); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(filepath.Join(e.Config.StateDir, "containers")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		if left, _ := os.ReadDir(bad.Runtime.Root); len(left) > 0 {
			t.Errorf("left behind by the runtime: %v", left)
		}
	})
}

func TestOOMIsTold(t *testing.T) {
	e, c := setup(t)
	limit := int64(16 << 20)
	want := e.Container(t, "oom", e.Runtime(
		t,
		"runc",
	), sh("x=a; while :; do x=$x$x; done"), func(s *specs.Spec, _ *monitor.Container) {
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	})

	run(t, c, want)
	if exit := wait(t, c, "oom"); !exit.OOM {
		t.Errorf("exit %+v, want OOM", exit)
	}
}

func TestLargeOutputIsWholeAndRotationLosesNothing(t *testing.T) {
	e, c := setup(t)

	// About 100 MB.
	const lines = 2_000_000
	want := e.Container(
		t,
		"big",
		e.Runtime(t, "crun"),
		count("this is one line of a large output, number", lines, 0),
		nil,
	)

	run(t, c, want)
	for range 3 {
		old := want.LogPath + "." + fmt.Sprint(time.Now().UnixNano())
		if err := os.Rename(want.LogPath, old); err != nil {
			t.Fatal(err)
		}
		if err := c.ReopenLog(t.Context(), "big"); err != nil {
			t.Fatal(err)
		}
	}

	wait(t, c, "big")
	var all strings.Builder
	files, _ := filepath.Glob(want.LogPath + ".*")
	for _, f := range append(files, want.LogPath) {
		all.WriteString(monitortest.LogText(t, f, "stdout"))
	}

	checkNumbered(t, all.String(), "this is one line of a large output, number ", lines)
}

// checkNumbered makes sure that text holds the lines prefix1 to prefixN, each once and in order.
func checkNumbered(t *testing.T, text, prefix string, n int) {
	t.Helper()
	i := 0
	for line := range strings.Lines(text) {
		i++
		if line != fmt.Sprintf("%s%d\n", prefix, i) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
	if i != n {
		t.Fatalf("%d lines, want %d", i, n)
	}
}

func TestKilledMonitorLosesAndDoublesNothing(t *testing.T) {
	runtimes(t, func(t *testing.T, name string) {
		e, c := setup(t)
		const lines = 300_000
		want := e.Container(t, "w", e.Runtime(t, name), count("line", lines, 3), nil)
		run(t, c, want)
		kills := 0
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()

		for {
			monitortest.KillMonitor(t, e.Config.Socket)
			kills++
			short, stop := context.WithTimeout(ctx, time.Duration(5+kills%7*10)*time.Millisecond)
			_, err := c.Wait(short, "w")
			stop()
			if err == nil || ctx.Err() != nil {
				break
			}
		}

		t.Logf("%d kills", kills)
		checkCode(t, wait(t, c, "w"), 3)
		checkNumbered(t, monitortest.LogText(t, want.LogPath, "stdout"), "line ", lines)
	})
}

func TestUpgradeKeepsChildrenAndTerminals(t *testing.T) {
	e, c := setup(t)
	rt := e.Runtime(t, "crun")
	want := e.Container(
		t,
		"u",
		rt,
		sh("echo up; read x; echo got $x; exit 9"),
		func(_ *specs.Spec, c *monitor.Container) { c.TTY, c.Stdin = true, true },
	)

	run(t, c, want)
	pid := monitortest.Pid(e.Config.Socket)
	for range 3 {
		if err := unix.Kill(pid, unix.SIGUSR2); err != nil {
			t.Fatal(err)
		}
	}

	monitortest.Eventually(t, func() error {
		log, _ := os.ReadFile(e.Config.LogFile)
		if strings.Count(string(log), "monitor is ready") < 2 {
			return fmt.Errorf("the program was not executed again")
		}

		return nil
	})
	if now := monitortest.Pid(e.Config.Socket); now != pid {
		t.Errorf("monitor %d is another process than %d", now, pid)
	}

	in, out := io.Pipe()
	go func() { fmt.Fprintln(out, "hello") }()
	var got lockedBuffer
	if err := c.Attach(t.Context(), "u", monitor.Streams{Stdin: in, Stdout: &got}); err != nil {
		t.Error(err)
	}
	if exit := wait(t, c, "u"); exit.Code != 9 || exit.Unknown {
		t.Errorf("exit %+v, want 9", exit)
	}
	if text := monitortest.LogText(t, want.LogPath, "stdout"); !strings.Contains(text, "got hello") {
		t.Errorf("log %q", text)
	}
	if !strings.Contains(got.String(), "got hello") {
		t.Errorf("attached client got %q", got.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestSecondMonitorIsRefused(t *testing.T) {
	e, _ := setup(t)
	for _, args := range [][]string{
		{"--socket", e.Config.Socket, "--state-dir", e.Config.StateDir + "2"},
		{"--socket", e.Config.Socket + "2", "--state-dir", e.Config.StateDir},
	} {
		out, err := exec.Command(e.Program(), args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "is in use by process ") {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
}

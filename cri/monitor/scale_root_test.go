package monitor_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
	"github.com/trivet-node/trivet/internal/retry"
)

func TestBothKilledLosesAndDoublesNothing(t *testing.T) {
	e, c := setup(t)
	const lines = 600_000
	// The container must outlive its output: when both are dead, it is the last holder of its FIFOs.
	want := e.Container(t, "w", e.Runtime(t, "crun"), sh(countAndWait(lines)), nil)
	start(t, c, want)
	kills := 0
	done := func() bool {
		return strings.Contains(
			tail(t, want.LogPath),
			" stdout F line "+fmt.Sprint(lines)+"\n",
		)
	}

	for deadline := time.Now().Add(60 * time.Second); !done() && time.Now().Before(deadline); kills++ {
		c.Close()
		monitortest.KillMonitor(t, e.Config.Socket)
		c = connect(t, e)

		// How long the monitor lives.
		if err := retry.Sleep(t.Context(), time.Duration(kills%7)*5*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}

	t.Logf("%d kills", kills)
	if err := c.Kill("w", unix.SIGTERM); err != nil {
		t.Error(err)
	}

	checkCode(t, wait(t, c, "w"), 3)
	checkNumbered(t, monitortest.LogText(t, want.LogPath, "stdout"), "line ", lines)
	if err := c.Delete(t.Context(), "w"); err != nil {
		t.Error(err)
	}
}

// countAndWait prints numbered lines, then waits for SIGTERM and exits with 3.
func countAndWait(lines int) string {
	return fmt.Sprintf("trap 'exit 3' TERM; awk 'BEGIN { for (i = 1; i <= %d; i++) print \"line\", i }'; "+
		"while :; do sleep 0.02; done", lines)
}

// tail is the end of a file.
func tail(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data[max(0, len(data)-200):])
}

func TestTerminalOutlivesTheMonitor(t *testing.T) {
	runtimes(t, func(t *testing.T, name string) {
		e, c := setup(t)
		want := e.Container(
			t,
			"t",
			e.Runtime(t, name),
			sh("i=0; while read x; do i=$((i+1)); echo $i got $x; done"),
			func(_ *specs.Spec, c *monitor.Container) { c.TTY, c.Stdin = true, true },
		)

		run(t, c, want)
		for i := 1; i <= 5; i++ {
			ctx, cancel := context.WithCancel(t.Context())
			var got lockedBuffer
			done := make(chan error)
			go func() {
				done <- c.Attach(ctx, "t", monitor.Streams{Stdin: strings.NewReader("hello\n"), Stdout: &got})
			}()

			monitortest.Eventually(t, func() error {
				if text := monitortest.LogText(t, want.LogPath, "stdout"); !strings.Contains(
					text,
					fmt.Sprintf("%d got hello", i),
				) {
					return fmt.Errorf("round %d: log %q", i, text)
				}

				return nil
			})

			cancel()
			<-done
			monitortest.KillMonitor(t, e.Config.Socket)
		}

		if err := c.Resize("t", 100, 30); err != nil {
			t.Error(err)
		}
	})
}

func TestHundredContainersAndAnExecStorm(t *testing.T) {
	e, c := setup(t)
	rt := e.Runtime(t, "crun")
	const n = 100
	began := time.Now()
	parallel(t, n, 8, func(i int) error {
		id := fmt.Sprintf("c%d", i)
		want := e.Container(t, id, rt, []string{"/bin/sleep", "1000"}, nil)
		if _, err := c.Create(t.Context(), want); err != nil {
			return err
		}

		return c.Start(t.Context(), id)
	})

	t.Logf("%d containers in %s", n, time.Since(began))
	pid := monitortest.Pid(e.Config.Socket)
	t.Logf("monitor with %d containers: %s", n, memory(pid))
	began = time.Now()
	parallel(t, 3*n, 8, func(i int) error {
		return execWithCode(t.Context(), c, fmt.Sprintf("c%d", i%n), i%200)
	})

	t.Logf("%d execs in %s; monitor: %s", 3*n, time.Since(began), memory(pid))
	monitortest.KillMonitor(t, e.Config.Socket)
	began = time.Now()
	parallel(t, n, 8, func(i int) error {
		id := fmt.Sprintf("c%d", i)
		if err := c.Kill(id, unix.SIGKILL); err != nil {
			return err
		}

		exit, err := c.Wait(t.Context(), id)
		if err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}

		checkCode(t, exit, 137)
		return c.Delete(t.Context(), id)
	})

	t.Logf("%d containers killed and deleted in %s", n, time.Since(began))
	if left, _ := os.ReadDir(e.Config.StateDir + "/containers"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if left, _ := os.ReadDir(e.Config.StateDir + "/exec"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// execWithCode executes a program in a container that exits with code.
func execWithCode(ctx context.Context, c *monitor.Client, id string, code int) error {
	ex, err := c.Exec(ctx, monitor.ExecConfig{
		ID: id,
		Process: specs.Process{
			Args: sh(fmt.Sprintf("exit %d", code)),
			Cwd:  "/",
			Env:  []string{"PATH=/bin"},
		},
	})
	if err != nil {
		return err
	}
	defer ex.Close()

	exit, err := ex.Wait(ctx)
	if err != nil || exit.Code != code {
		return fmt.Errorf("exec in container %s: %+v, %w; want code %d", id, exit, err, code)
	}
	return nil
}

// parallel calls f(0) to f(n-1), some at once, and fails the test with their errors.
func parallel(t *testing.T, n, workers int, f func(i int) error) {
	t.Helper()
	work := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range work {
				if err := f(i); err != nil {
					t.Error(err)
				}
			}
		})
	}

	for i := range n {
		work <- i
	}

	close(work)
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// memory returns what a process takes.
func memory(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	var out []string
	for line := range strings.Lines(string(data)) {
		for _, key := range []string{"Rss:", "Pss:", "Pss_Anon:", "Pss_Shmem:"} {
			if strings.HasPrefix(line, key) {
				out = append(out, strings.Join(strings.Fields(line), " "))
			}
		}
	}
	return strings.Join(out, ", ")
}

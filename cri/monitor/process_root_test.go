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
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// The monitor may be protected from the OOM killer; nothing that runs in a container may inherit that. A test
// without privileges can only raise the value, so here the container's is higher than the monitor's.
func TestExecHasTheOOMScoreOfItsContainer(t *testing.T) {
	runtimes(t, func(t *testing.T, name string) {
		e, c := setup(t)
		want := e.Container(t, "score", e.Runtime(
			t,
			name,
		), sh("cat /proc/self/oom_score_adj; exec sleep 1000"), func(s *specs.Spec, c *monitor.Container) {
			adj := 500
			s.Process.OOMScoreAdj, c.OOMScoreAdj = &adj, adj
		})

		run(t, c, want)
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close()

		ex, err := c.Exec(
			t.Context(),
			monitor.ExecConfig{
				ID:     "score",
				Stdout: write,
				Process: specs.Process{
					Args: sh("cat /proc/self/oom_score_adj"),
					Cwd:  "/",
					Env:  []string{"PATH=/bin"},
				},
			},
		)

		write.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer ex.Close()

		if got, err := io.ReadAll(read); err != nil || string(got) != "500\n" {
			t.Errorf("exec: %q, %v", got, err)
		}

		monitortest.Eventually(t, func() error {
			if got := monitortest.LogText(t, want.LogPath, "stdout"); got != "500\n" {
				return fmt.Errorf("container: %q", got)
			}

			return nil
		})
	})
}

func TestContainerInAnotherPIDNamespaceEndsWhole(t *testing.T) {
	host, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}

	runtimes(t, func(t *testing.T, name string) {
		e, c := setup(t)
		want := e.Container(t, "rest", e.Runtime(
			t,
			name,
		), sh("sleep 1000 & sleep 1000 & echo up; exit 4"), func(s *specs.Spec, c *monitor.Container) {
			// All namespaces but that of processes.
			s.Linux.Namespaces, c.SharedPID = s.Linux.Namespaces[1:], true
		})

		run(t, c, want)
		if exit := wait(t, c, "rest"); exit.Code != 4 {
			t.Errorf("exit %+v, want 4", exit)
		}
		if left, err := host.Procs(want.Cgroup); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
		if got := monitortest.LogText(t, want.LogPath, "stdout"); got != "up\n" {
			t.Errorf("log %q", got)
		}
	})
}

// The monitor is stopped while containers end, so that it finds exits and the upgrade at once: whichever it
// takes first, no exit is lost, even if nobody holds a pidfd from which a new kernel could still read the
// status.
func TestExitsInTheMomentOfAnUpgradeAreKept(t *testing.T) {
	e, c := setup(t)
	const n = 12
	for i := range n {
		startTrapped(t, e, c, fmt.Sprint("u", i), 30+i)
	}

	pids := pidsOf(c)
	c.Close()

	mon := monitortest.Pid(e.Config.Socket)
	for i := 0; i < n; i += 4 {
		unix.Kill(mon, unix.SIGSTOP)
		unix.Kill(mon, unix.SIGUSR2)
		for j := i; j < i+4; j++ {
			pid := pids[fmt.Sprint("u", j)]
			unix.Kill(pid, unix.SIGTERM)
			waitGone(t, pid)
		}

		unix.Kill(mon, unix.SIGCONT)
		awaitUpgrades(t, e, 1+i/4)
	}

	c = connect(t, e)
	for i := range n {
		id := fmt.Sprint("u", i)
		if exit := wait(t, c, id); exit.Code != 30+i || exit.Unknown {
			t.Errorf("%s: exit %+v, want %d", id, exit, 30+i)
		}
	}

	deleteAll(t, c)
	if now := monitortest.Pid(e.Config.Socket); now != mon {
		t.Errorf("monitor %d is another process than %d", now, mon)
	}
}

// awaitUpgrades waits until the monitor has executed its program that many times since its start.
func awaitUpgrades(t *testing.T, e *monitortest.Env, n int) {
	t.Helper()
	monitortest.Eventually(t, func() error {
		log, err := os.ReadFile(e.Config.LogFile)
		if err != nil || strings.Count(string(log), "monitor is ready") < 1+n {
			return errors.Join(fmt.Errorf("fewer than %d upgrades", n), err)
		}
		return nil
	})
}

func TestForgetThatFailsIsRepeated(t *testing.T) {
	e, c := setup(t)
	start(t, c, e.Container(t, "f", e.Runtime(t, "crun"), []string{"/bin/sleep", "1000"}, nil))
	mon, dir := monitortest.Pid(e.Config.Socket), filepath.Join(e.Config.StateDir, "containers/f")

	// os.Remove does not remove a directory that is not empty.
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o700); err != nil {
		t.Fatal(err)
	}

	for range 2 {
		if err := c.Delete(t.Context(), "f"); err == nil {
			t.Error("deleted, though its directory cannot be removed")
		}
	}

	if err := os.RemoveAll(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), "f"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory is left: %v", err)
	}
	if now := monitortest.Pid(e.Config.Socket); now != mon {
		t.Errorf("monitor %d has died; now it is %d", mon, now)
	}
}

func TestStartThatIsUnderWayIsWaitedFor(t *testing.T) {
	e, c := setup(t)
	rt := e.Runtime(t, "crun")
	want := e.Container(t, "s", rt, []string{"/bin/sleep", "1000"}, nil)
	if _, err := c.Create(t.Context(), want); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { c.Delete(context.WithoutCancel(t.Context()), "s") })
	if started, err := c.Started(t.Context(), "s"); started || err != nil {
		t.Errorf("before the start: %t, %v", started, err)
	}

	// A process that starts a container is found by the log that it has open.
	call, err := rt.NewCall("start", "s")
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()

	cmd := exec.Command("/bin/sh",
		"-c", fmt.Sprintf("read x; exec %s --root %s start s", rt.Program, rt.Root))
	cmd.ExtraFiles = []*os.File{call.Log()}
	in, err := cmd.StdinPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}

	go func() { fmt.Fprintln(in); cmd.Wait() }()
	if started, err := c.Started(t.Context(), "s"); !started || err != nil {
		t.Errorf("after it: %t, %v", started, err)
	}
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/monitortest"
	"github.com/trivet-node/trivet/internal/program"
)

// TestMain lets the test binary stand in for trivet-monitor.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "pause" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestAnArgumentThatIsNotKnownIsAUsageError(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &program.Env{
		Name:   "trivet-monitor",
		Args:   []string{"paws"},
		Stdout: &out,
		Stderr: &out,
		Log:    slog.New(slog.DiscardHandler),
	})
	if _, ok := errors.AsType[*program.UsageError](err); !ok || !strings.Contains(err.Error(), `"paws"`) {
		t.Errorf("error %v, want a usage error that names the argument", err)
	}
}

// startPause starts the first process of a pod, with a child that ends when end is called. The shell that
// started the child is gone by then: it would reap it, too, before the pause listens for signals.
func startPause(t *testing.T) (pause *exec.Cmd, child int, end func()) {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "end")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}

	pause = exec.Command("/bin/sh", "-c", `(read line <"$1") & echo $!; exec "$0" pause`, os.Args[0], fifo)
	stdout, err := pause.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := pause.Start(); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		pause.Process.Kill()
		pause.Wait()
	})

	if _, err := fmt.Fscan(stdout, &child); err != nil {
		t.Fatal(err)
	}
	monitortest.Eventually(t, func() error { return runsThisProgram(pause.Process.Pid) })

	return pause, child, func() {
		t.Helper()
		if err := os.WriteFile(fifo, []byte("end\n"), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// runsThisProgram is nil once process pid executes the test binary.
func runsThisProgram(pid int) error {
	own, err := os.Stat("/proc/self/exe")
	if err != nil {
		return err
	}
	other, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return err
	}

	if !os.SameFile(own, other) {
		return fmt.Errorf("process %d still runs another program", pid)
	}

	return nil
}

func TestPauseReapsItsChildrenAndEndsOnSIGTERM(t *testing.T) {
	pause, child, end := startPause(t)
	end()
	monitortest.Eventually(t, func() error {
		if err := unix.Kill(child, 0); !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("child %d is still there", child)
		}

		return nil
	})

	if err := pause.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := pause.Wait(); err != nil {
		t.Errorf("pause ended with %v, want success", err)
	}
}

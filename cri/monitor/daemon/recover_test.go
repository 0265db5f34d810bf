package daemon_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/monitortest"
	"github.com/trivet-node/trivet/cri/monitor/wire"
)

func TestExitsAreKeptUntilAClientForgetsTheContainer(t *testing.T) {
	w := newWorld(t)
	m, c := w.serve(t)
	c.create(t, w.container(t, "a", "exit 9"))
	w.startProgram(t, "a")
	c.exit(t, "a")

	for _, life := range []string{"the same monitor", "the next monitor"} {
		next := w.connect(t)
		if got := next.known["a"]; got.Exit == nil || got.Exit.Code != 9 || got.LogPath == "" {
			t.Errorf("%s: %+v, want an exit with code 9", life, got)
		}

		m.kill()
		m, c = w.serve(t)
	}

	c.forget(t, "a")
	if known := w.connect(t).known; len(known) > 0 {
		t.Errorf("after it was forgotten: %v", known)
	}
}

func TestTheSuccessorOfAKilledMonitorServesTheContainers(t *testing.T) {
	w := newWorld(t)
	m, c := w.serve(t)
	want := w.container(t, "a", "echo one; read line; echo two; exit 5")
	want.Stdin = true
	want.StdinOnce = true
	c.create(t, want)
	w.startProgram(t, "a")
	stdin := c.files["a"][wire.FdIn]
	m.kill()
	if _, err := unix.Write(stdin, []byte("go\n")); err != nil {
		t.Fatal(err)
	}

	if _, err := w.start(t); err != nil {
		t.Fatal(err)
	}

	next := w.dial(t)
	if err := next.conn.Send(wire.Message{Op: wire.OpAdopt, ID: "a"},
		wire.Files{wire.FdPid: c.files["a"][wire.FdPid]}); err != nil {
		t.Fatal(err)
	}

	next.hello(t)
	exit := next.known["a"].Exit
	if exit == nil {
		got := next.exit(t, "a")
		exit = &got
	}

	if unknown := !monitortest.KernelKeepsExits(t); exit.Unknown != unknown || !unknown && exit.Code != 5 {
		t.Errorf("exit %+v, want code 5 where the kernel keeps it", exit)
	}
	if got := w.log(t, "a"); got != "one\ntwo\n" {
		t.Errorf("log %q", got)
	}

	next.forget(t, "a")
}

func TestAStatusThatNobodyBroughtIsUnknown(t *testing.T) {
	w := newWorld(t)
	m, c := w.serve(t)
	status := c.create(t, w.container(t, "a", "exit 0"))
	m.kill()
	w.startProgram(t, "a")
	gone(t, status.Pid)

	_, next := w.serve(t)
	exit := next.known["a"].Exit
	if exit == nil {
		got := next.exit(t, "a")
		exit = &got
	}

	if !exit.Unknown || exit.Code != wire.UnknownCode {
		t.Errorf("exit %+v, want an unknown one", exit)
	}

	next.forget(t, "a")
}

// gone waits until a process that is not a child has been reaped.
func gone(t *testing.T, pid int) {
	t.Helper()
	monitortest.Eventually(t, func() error {
		if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("process %d is still there", pid)
		}
		return nil
	})
}

func TestAnUpgradeKeepsChildrenAndStdin(t *testing.T) {
	w := newWorld(t)
	m, c := w.serve(t)
	want := w.container(t, "a", "read line; echo got $line; exit 4")
	want.Stdin = true
	want.StdinOnce = true
	c.create(t, want)
	w.startProgram(t, "a")
	if err := m.cmd.Process.Signal(unix.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.conn.Receive(); err == nil {
		t.Error("the connection outlived the upgrade")
	}

	next := w.connect(t)
	stdin := next.files["a"].Take(wire.FdIn)
	if _, err := unix.Write(stdin, []byte("hello\n")); err != nil {
		t.Fatal(err)
	}

	unix.Close(stdin)
	if exit := next.exit(t, "a"); exit.Code != 4 || exit.Unknown {
		t.Errorf("exit %+v, want code 4", exit)
	}
	if got := w.log(t, "a"); got != "got hello\n" {
		t.Errorf("log %q", got)
	}

	next.forget(t, "a")
}

// leftBehind writes a file below the directory of containers, as an earlier monitor did.
func (w *world) leftBehind(t *testing.T, path, text string) {
	t.Helper()
	path = filepath.Join(w.stateDir(), "containers", path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWhatAnEarlierMonitorLeftIsTakenOverOrUndone(t *testing.T) {
	w := newWorld(t)
	runtime := fmt.Sprintf(`{"Program":%q,"Root":%q}`, w.runtime.Program, w.runtime.Root)
	w.leftBehind(t, "exited/record.json", `{"ID":"exited","Bundle":"/b","Runtime":`+runtime+
		`,"Pid":123,"Exit":{"ID":"exited","Code":2,"At":"2026-01-02T03:04:05Z"},"StartTime":77}`)
	w.leftBehind(t, "creating/record.json", `{"ID":"creating","Runtime":`+runtime+`,"Creating":true}`)
	w.leftBehind(t, "torn/record.json", `{"ID":"to`)
	w.leftBehind(t, "other/record.json", `{"ID":"another"}`)
	w.leftBehind(t, "empty/out", "")
	halfMade := filepath.Join(w.runtime.Root, "creating")
	if err := os.MkdirAll(halfMade, 0o700); err != nil {
		t.Fatal(err)
	}

	_, c := w.serve(t)
	if got := c.known["exited"]; got.Exit == nil || got.Exit.Code != 2 || len(c.known) != 1 {
		t.Errorf("known are %+v, want the one that has exited with code 2", c.known)
	}

	left := w.left(t)
	if want := []string{".torn-other", ".torn-torn", "exited"}; !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v", left, want)
	}
	if _, err := os.Lstat(halfMade); err == nil {
		t.Error("the runtime's state of a container that was half made is still there")
	}
}

func TestASecondMonitorIsRefused(t *testing.T) {
	w := newWorld(t)
	w.serve(t)
	if _, err := w.start(t); err == nil {
		t.Fatal("two monitors serve one socket")
	} else {
		contains(t, err.Error(), "m.sock (--socket) is in use by")
	}
}

func TestAMonitorIsDismissedOnlyWhenNoContainerIsLeft(t *testing.T) {
	w := newWorld(t)
	m, c := w.serve(t)
	other := w.connect(t)
	c.create(t, w.container(t, "a", "exec sleep 1000"))
	if err := c.do(t, wire.OpDismiss, ""); err == nil {
		t.Fatal("a monitor with a container was dismissed")
	} else {
		contains(t, err.Error(), "1 containers are left", "a")
	}

	c.forget(t, "a")
	if err := c.do(t, wire.OpDismiss, ""); err != nil {
		t.Fatal(err)
	}

	other.event(t, wire.OpDismissed)
	if err := m.cmd.Wait(); err != nil {
		t.Errorf("the monitor ended with %v", err)
	}
	if _, err := os.Lstat(filepath.Join(w.dir, "m.sock")); err == nil {
		t.Error("its socket is still there")
	}
}

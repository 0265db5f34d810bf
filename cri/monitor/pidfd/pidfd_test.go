package pidfd_test

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/pidfd"
)

// start runs a shell script until stdin is closed by end.
func start(t *testing.T, script string) (cmd *exec.Cmd, fd int, end func()) {
	t.Helper()
	cmd = exec.Command("/bin/sh", "-c", "read line; "+script)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err = pidfd.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
		unix.Close(fd)
	})
	return cmd, fd, func() { stdin.Close() }
}

func TestWaitReturnsWhenTheProcessHasEnded(t *testing.T) {
	_, fd, end := start(t, "exit 0")
	if pidfd.Ended(fd) {
		t.Error("a process that runs has ended")
	}
	end()
	if err := pidfd.Wait(fd, nil); err != nil || !pidfd.Ended(fd) {
		t.Errorf("wait: %v; ended: %t", err, pidfd.Ended(fd))
	}
}

func TestWaitReturnsWhenItIsClosed(t *testing.T) {
	_, fd, _ := start(t, "exit 0")
	closing := make(chan struct{})
	close(closing)
	if err := pidfd.Wait(fd, closing); !errors.Is(err, os.ErrClosed) {
		t.Errorf("wait: %v, want os.ErrClosed", err)
	}
}

func TestTheStatusOfAZombieIsFound(t *testing.T) {
	for script, want := range map[string]unix.WaitStatus{
		"exit 7":        7 << 8,
		"kill -TERM $$": unix.WaitStatus(unix.SIGTERM),
	} {
		cmd, fd, end := start(t, script)
		if _, err := pidfd.Status(fd, cmd.Process.Pid); !errors.Is(err, pidfd.ErrUnknown) {
			t.Errorf("%s: status of a process that runs: %v, want ErrUnknown", script, err)
		}
		end()
		if err := pidfd.Wait(fd, nil); err != nil {
			t.Fatal(err)
		}
		if got, err := pidfd.Status(fd, cmd.Process.Pid); err != nil || got != want {
			t.Errorf("%s: status %#x, %v; want %#x", script, got, err, want)
		}
	}
}

func TestAProcessIsNamedByItsParentAndStartTime(t *testing.T) {
	cmd, _, _ := start(t, "exit 0")
	if parent, err := pidfd.Parent(cmd.Process.Pid); err != nil || parent != os.Getpid() {
		t.Errorf("parent %d, %v; want %d", parent, err, os.Getpid())
	}
	own, err := pidfd.StartTime(os.Getpid())
	child, childErr := pidfd.StartTime(cmd.Process.Pid)
	if err != nil || childErr != nil || own == 0 || child < own {
		t.Errorf("started at %d, %v; its child at %d, %v", own, err, child, childErr)
	}
}

func TestAProcessThatWasReapedCannotBeOpened(t *testing.T) {
	cmd := exec.Command("/bin/true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if fd, err := pidfd.Open(cmd.Process.Pid); !errors.Is(err, unix.ESRCH) {
		unix.Close(fd)
		t.Errorf("open: %v, want ESRCH", err)
	}
	if _, err := pidfd.StartTime(cmd.Process.Pid); err == nil {
		t.Error("it has a start time")
	}
}

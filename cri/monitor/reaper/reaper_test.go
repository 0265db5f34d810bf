package reaper_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/pidfd"
	"github.com/trivet-node/trivet/cri/monitor/reaper"
)

// all is the one Reaper of the test process.
var all = reaper.New()

func TestMain(m *testing.M) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}

	code := 1
	func() {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)

			all.Run(ctx)
		}()

		defer func() {
			cancel()
			<-ended
		}()

		code = m.Run()
	}()

	os.Exit(code)
}

// shell is a command whose stdout is out.
func shell(script string, out *os.File) reaper.Command {
	return reaper.Command{
		Path:    "/bin/sh",
		Args:    []string{"sh", "-c", script},
		Files:   []uintptr{0, out.Fd(), 2},
		Timeout: time.Minute,
	}
}

// orphan starts a process that is reparented to this one. It exits with code when end is called: not before,
// because its parent might reap it.
func orphan(t *testing.T, code int) (pid int, end func()) {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "end")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}

	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()

	script := fmt.Sprintf("(read line <%s; exit %d) >/dev/null & echo $!", fifo, code)
	status, err := all.Do(shell(script, write))
	write.Close()
	if err != nil || status.ExitStatus() != 0 {
		t.Fatalf("start an orphan: %v, status %d", err, status)
	}

	if _, err := fmt.Fscan(read, &pid); err != nil {
		t.Fatal(err)
	}

	return pid, func() {
		t.Helper()
		if err := os.WriteFile(fifo, []byte("end\n"), 0); err != nil {
			t.Fatal(err)
		}
	}
}

func TestACommandsStatusIsReturned(t *testing.T) {
	status, err := all.Do(shell("exit 7", os.Stdout))
	if err != nil || status.ExitStatus() != 7 {
		t.Errorf("exit 7: status %d, %v", status.ExitStatus(), err)
	}
	status, err = all.Do(shell("kill -TERM $$", os.Stdout))
	if err != nil || status.Signal() != unix.SIGTERM {
		t.Errorf("killed by SIGTERM: signal %v, %v", status.Signal(), err)
	}
}

func TestACommandThatCannotBeStartedIsAnError(t *testing.T) {
	cmd := shell("", os.Stdout)
	cmd.Path = "/no/such/program"
	if _, err := all.Do(cmd); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want that the program does not exist", err)
	}
}

func TestACommandThatTakesTooLongIsKilledWithItsChildren(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()

	cmd := shell("sleep 1000 & sleep 1000", write)
	cmd.Timeout = 50 * time.Millisecond

	_, err = all.Do(cmd)
	write.Close()
	if !errors.Is(err, reaper.ErrTimeout) {
		t.Errorf("error %v, want a timeout", err)
	}
	if n, _ := read.Read(make([]byte, 1)); n != 0 {
		t.Error("something was written, and the pipe should have ended")
	}
}

func TestTheStatusOfAReparentedProcessIsHandedOver(t *testing.T) {
	defer all.KeepUnclaimed()()
	pid, end := orphan(t, 5)
	fd := open(t, pid)

	statuses := make(chan unix.WaitStatus, 1)
	all.Claim(pid, fd, func(s unix.WaitStatus) { statuses <- s })
	end()
	if s := <-statuses; s.ExitStatus() != 5 {
		t.Errorf("exit status %d, want 5", s.ExitStatus())
	}
}

// open returns a pidfd until the end of the test.
func open(t *testing.T, pid int) int {
	t.Helper()
	fd, err := pidfd.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// ended ends an orphan and waits until it has been reaped.
func ended(t *testing.T, pid int, end func()) {
	t.Helper()
	fd := open(t, pid)
	end()
	if err := pidfd.Wait(fd, nil); err != nil {
		t.Fatal(err)
	}

	// Children that have ended are reaped together, so the orphan has been when a later child is.
	if _, err := all.Do(shell("exit 0", os.Stdout)); err != nil {
		t.Fatal(err)
	}
}

func TestAStatusIsKeptOnlyWhileSomebodyMayClaimIt(t *testing.T) {
	release := all.KeepUnclaimed()
	pid, end := orphan(t, 6)
	ended(t, pid, end)
	if s, ok := all.Unclaimed(pid, -1); !ok || s.ExitStatus() != 6 {
		t.Errorf("during an operation: status %d, known %t; want 6", s.ExitStatus(), ok)
	}
	if _, ok := all.Unclaimed(pid, -1); ok {
		t.Error("one status was handed out twice")
	}

	pid, end = orphan(t, 6)
	ended(t, pid, end)
	release()
	if _, ok := all.Unclaimed(pid, -1); ok {
		t.Error("a status was kept after the last operation had ended")
	}

	release()
}

func TestTheStatusOfAnEarlierProcessOfTheSameNumberIsNotTaken(t *testing.T) {
	defer all.KeepUnclaimed()()
	pid, end := orphan(t, 6)
	ended(t, pid, end)

	// This process stands for one that got the number again, and lives.
	if _, ok := all.Unclaimed(pid, open(t, os.Getpid())); ok {
		t.Error("the status of the process before it was taken for that of one that lives")
	}
}

func TestChildrenThatEndDuringAPauseStayZombies(t *testing.T) {
	defer all.KeepUnclaimed()()

	pid, end := orphan(t, 4)
	fd := open(t, pid)

	all.Pause()
	end()
	err := pidfd.Wait(fd, nil)
	state, readErr := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	all.Resume()
	if err != nil || readErr != nil || !strings.Contains(string(state), ") Z ") {
		t.Errorf("ended during the pause: %v, %v, %s; want a zombie", err, readErr, state)
	}

	statuses := make(chan unix.WaitStatus, 1)
	all.Claim(pid, fd, func(s unix.WaitStatus) { statuses <- s })
	if s := <-statuses; s.ExitStatus() != 4 {
		t.Errorf("after the pause: exit status %d, want 4", s.ExitStatus())
	}
}

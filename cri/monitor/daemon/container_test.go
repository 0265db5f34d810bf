package daemon_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/monitortest"
	"github.com/trivet-node/trivet/cri/monitor/wire"
)

func TestOutputAndExitOfAContainerArrive(t *testing.T) {
	w := newWorld(t)
	_, c := w.serve(t)
	want := w.container(t, "a", "echo one; echo two >&2; exit 7")
	status := c.create(t, want)
	if status.Pid <= 1 || status.Exit != nil {
		t.Errorf("created: %+v", status)
	}

	w.startProgram(t, "a")
	if exit := c.exit(t, "a"); exit.Code != 7 || exit.Signal != 0 || exit.Unknown {
		t.Errorf("exit %+v, want code 7", exit)
	}
	if got := w.log(t, "a"); got != "one\n" {
		t.Errorf("stdout in the log: %q", got)
	}
	if got := monitortest.LogText(t, want.LogPath, "stderr"); got != "two\n" {
		t.Errorf("stderr in the log: %q", got)
	}

	c.forget(t, "a")
	if left := w.left(t); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

func TestASignalIsPartOfTheExit(t *testing.T) {
	w := newWorld(t)
	_, c := w.serve(t)
	c.create(t, w.container(t, "a", "kill -TERM $$"))
	w.startProgram(t, "a")
	if exit := c.exit(t, "a"); exit.Code != 143 || exit.Signal != unix.SIGTERM {
		t.Errorf("exit %+v, want 143 by SIGTERM", exit)
	}
	c.forget(t, "a")
}

func TestACreateThatTheRuntimeRefusesSaysWhyAndLeavesNothing(t *testing.T) {
	w := newWorld(t)
	_, c := w.serve(t)
	want := w.container(t, "a", "")
	if err := os.WriteFile(filepath.Join(want.Bundle, "refuse"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	m, _ := c.call(t, wire.Message{Op: wire.OpCreate, ID: "a", Container: &want}, nil)
	if err := m.Fail.Err(); !errors.Is(err, wire.ErrRefused) {
		t.Errorf("error %v, want ErrRefused", err)
	} else {
		contains(t, err.Error(), "container a", "the bundle is refused")
	}

	if left := w.left(t); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

func TestAnIDIsUsedOnceAndIsNotAPath(t *testing.T) {
	w := newWorld(t)
	_, c := w.serve(t)
	want := w.container(t, "a", "exec sleep 1000")
	c.create(t, want)
	m, _ := c.call(t, wire.Message{Op: wire.OpCreate, ID: "a", Container: &want}, nil)
	if err := m.Fail.Err(); !errors.Is(err, wire.ErrExists) {
		t.Errorf("the second create: %v, want ErrExists", err)
	}

	for _, id := range []string{"", "..", "a/b"} {
		want.ID = id
		m, _ := c.call(t, wire.Message{Op: wire.OpCreate, ID: id, Container: &want}, nil)
		if m.Fail == nil {
			t.Errorf("a container with the ID %q was made", id)
		}
		if err := c.do(t, wire.OpForget, id); err != nil {
			t.Errorf("forget of the ID %q: %v", id, err)
		}
	}

	c.forget(t, "a")
}

func TestForgetKillsAContainerAndIsRepeatable(t *testing.T) {
	w := newWorld(t)
	_, c := w.serve(t)
	c.create(t, w.container(t, "a", "exec sleep 1000"))
	w.startProgram(t, "a")
	c.forget(t, "a")
	if exit := c.exit(t, "a"); exit.Signal != unix.SIGKILL {
		t.Errorf("exit %+v, want one by SIGKILL", exit)
	}
	c.forget(t, "a")
}

func TestRequestsForAContainerThatIsNotThereSaySo(t *testing.T) {
	w := newWorld(t)
	_, c := w.serve(t)
	for _, op := range []wire.Op{wire.OpReopenLog, wire.OpAttach, wire.OpCloseStdin, wire.OpExec} {
		if err := c.do(t, op, "missing"); !errors.Is(err, wire.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", op, err)
		}
	}

	if err := c.do(t, "paint", "missing"); err == nil {
		t.Error("an unknown request succeeded")
	} else {
		contains(t, err.Error(), "paint")
	}
}

func TestAnAttachedClientGetsTheOutputAndItsEnd(t *testing.T) {
	w := newWorld(t)
	_, c := w.serve(t)
	c.create(t, w.container(t, "a", "echo hello"))
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()

	m, _ := c.call(t, wire.Message{Op: wire.OpAttach, ID: "a"}, wire.Files{wire.FdOut: int(write.Fd())})
	write.Close()
	if m.Fail != nil {
		t.Fatal(m.Fail.Err())
	}

	w.startProgram(t, "a")
	got, err := io.ReadAll(read)
	if err != nil || string(got) != "hello\n" {
		t.Errorf("attached: %q, %v", got, err)
	}

	c.exit(t, "a")
	if err := c.do(t, wire.OpAttach, "a"); !errors.Is(err, wire.ErrExited) {
		t.Errorf("attach after the exit: %v, want ErrExited", err)
	}

	c.forget(t, "a")
}

func TestStdinOnceEndsWithItsLastWriter(t *testing.T) {
	w := newWorld(t)
	_, c := w.serve(t)
	want := w.container(t, "a", "exec cat")
	want.Stdin = true
	want.StdinOnce = true
	c.create(t, want)
	w.startProgram(t, "a")

	stdin := os.NewFile(uintptr(c.files["a"].Take(wire.FdIn)), "stdin")
	if _, err := stdin.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}

	stdin.Close()
	if err := c.do(t, wire.OpCloseStdin, "a"); err != nil {
		t.Fatal(err)
	}
	if exit := c.exit(t, "a"); exit.Code != 0 || exit.Unknown {
		t.Errorf("exit %+v, want 0", exit)
	}
	if got := w.log(t, "a"); got != "hello\n" {
		t.Errorf("log %q", got)
	}

	c.forget(t, "a")
}

func TestTheLogIsReopenedAfterARotation(t *testing.T) {
	w := newWorld(t)
	_, c := w.serve(t)
	want := w.container(t, "a", "echo old; read line; echo new")
	want.Stdin = true
	want.StdinOnce = true
	c.create(t, want)
	w.startProgram(t, "a")
	monitortest.Eventually(t, func() error {
		if got := w.log(t, "a"); got != "old\n" {
			return errors.New("log " + got)
		}

		return nil
	})

	if err := os.Rename(want.LogPath, want.LogPath+".1"); err != nil {
		t.Fatal(err)
	}
	if err := c.do(t, wire.OpReopenLog, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(c.files["a"][wire.FdIn], []byte("go\n")); err != nil {
		t.Fatal(err)
	}

	c.exit(t, "a")
	if old := monitortest.LogText(t, want.LogPath+".1", "stdout"); old != "old\n" {
		t.Errorf("the rotated log: %q", old)
	}
	if got := w.log(t, "a"); got != "new\n" {
		t.Errorf("the log: %q", got)
	}

	c.forget(t, "a")
}

// process is a request to execute the program at path in container a, with the stdout that is given.
func process(t *testing.T, w *world, path string, stdout *os.File) (wire.Message, wire.Files) {
	t.Helper()
	fd, err := unix.MemfdCreate("process.json", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}

	file := os.NewFile(uintptr(fd), "process.json")
	t.Cleanup(func() { file.Close() })
	if _, err := file.WriteAt([]byte(`{"args":["`+path+`"],"cwd":"/"}`), 0); err != nil {
		t.Fatal(err)
	}

	m := wire.Message{Op: wire.OpExec, ID: "a", Exec: &wire.Exec{Runtime: w.runtime}}
	return m, wire.Files{wire.FdProcess: fd, wire.FdOut: int(stdout.Fd())}
}

func TestAnExecWritesToItsClientAndOnlyThatOneHearsOfItsEnd(t *testing.T) {
	w := newWorld(t)
	_, c := w.serve(t)
	other := w.connect(t)
	c.create(t, w.container(t, "a", "exec sleep 1000"))
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()

	program := monitortest.FakeBundle(
		t,
		filepath.Join(w.dir, "exec"),
		"echo from the exec; exit 3",
	) + "/program"

	m, files := process(t, w, program, write)
	got, gotFiles := c.call(t, m, files)
	write.Close()
	defer gotFiles.Close()

	if got.Fail != nil || got.Pid <= 1 {
		t.Fatalf("exec: pid %d, %v", got.Pid, got.Fail.Err())
	}

	said, err := io.ReadAll(read)
	if err != nil || string(said) != "from the exec\n" {
		t.Errorf("stdout %q, %v", said, err)
	}
	if end := c.event(t, wire.OpExecExit); end.Seq != got.Seq || end.Exit.Code != 3 {
		t.Errorf("exit %+v of request %d, want code 3 of %d", end.Exit, end.Seq, got.Seq)
	}

	c.forget(t, "a")
	if m := other.event(t, wire.OpExit); len(other.events) > 0 {
		t.Errorf("the other client got %+v before %+v", other.events, m)
	}
}

func TestAnExecThatCannotBeStartedSaysWhy(t *testing.T) {
	w := newWorld(t)
	_, c := w.serve(t)
	c.create(t, w.container(t, "a", "exit 0"))
	m, files := process(t, w, "/no/such/program", os.Stdout)
	if got, _ := c.call(t, m, files); got.Fail == nil {
		t.Error("a program that does not exist was executed")
	} else {
		contains(t, got.Fail.Text, "container a", "no such program")
	}

	if err := c.do(t, wire.OpExec, "a"); err == nil {
		t.Error("an exec without a process succeeded")
	}

	w.startProgram(t, "a")
	c.exit(t, "a")
	if got, _ := c.call(t, m, files); !errors.Is(got.Fail.Err(), wire.ErrExited) {
		t.Errorf("after the exit: %v, want ErrExited", got.Fail.Err())
	}

	c.forget(t, "a")
}

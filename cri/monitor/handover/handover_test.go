package handover_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/handover"
)

// TestMain lets the test binary stand in for a program that executes itself with a descriptor handed over.
func TestMain(m *testing.M) {
	dir := os.Getenv("HANDOVER_TEST_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := executeTwice(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// executeTwice hands the descriptor 3 over to itself, twice, and then writes to it.
func executeTwice(dir string) error {
	received, err := handover.Receive(dir)
	if err != nil {
		return err
	}

	out, ok := received.Take("out")
	if !ok {
		out = 3
	}

	if second, ok := received.Take("second time"); ok {
		unix.Close(second)
		_, err := fmt.Fprintf(os.NewFile(uintptr(out), "out"), "from process %d", os.Getpid())
		return err
	}

	next := handover.Descriptors{}
	if err := next.Add("out", out); err != nil {
		return err
	}

	unix.Close(out)
	if received != nil {
		if err := next.AddConn("second time", os.Stdout); err != nil {
			return err
		}
	}

	return next.Exec(os.Args[0], dir)
}

func TestDescriptorsReachTheNextProgramInTheSameProcess(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()

	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HANDOVER_TEST_DIR="+dir)
	cmd.ExtraFiles = []*os.File{write}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	write.Close()

	said, err := io.ReadAll(read)
	if waitErr := cmd.Wait(); err != nil || waitErr != nil {
		t.Fatal(err, waitErr)
	}
	if want := fmt.Sprintf("from process %d", cmd.Process.Pid); string(said) != want {
		t.Errorf("got %q, want %q", said, want)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

func TestNothingIsReceivedFromAProcessThatWasKilledBeforeItsExecve(t *testing.T) {
	for name, record := range map[string]string{
		"of another process":                `{"Pid":1,"Fds":{"listener":3}}`,
		"of an earlier process of this PID": fmt.Sprintf(`{"Pid":%d,"Fds":{"listener":3}}`, os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "inherit.json")
			if err := os.WriteFile(path, []byte(record), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := handover.Receive(dir); got != nil || err != nil {
				t.Errorf("received %v, %v", got, err)
			}
			if _, err := os.Lstat(path); err == nil {
				t.Error("the record is still there")
			}
		})
	}
}

func TestARecordThatCannotBeReadIsAnErrorOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "inherit.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := handover.Receive(dir); err == nil {
		t.Error("a torn record was read")
	}
	if got, err := handover.Receive(dir); got != nil || err != nil {
		t.Errorf("the second time: %v, %v", got, err)
	}
}

func TestAFailedExecKeepsTheDescriptorsAndLeavesNoRecord(t *testing.T) {
	dir := t.TempDir()
	d := handover.Descriptors{}
	defer d.Close()

	if err := d.AddConn("stdout", os.Stdout); err != nil {
		t.Fatal(err)
	}
	if err := d.Exec(filepath.Join(dir, "missing"), dir); err == nil {
		t.Fatal("a program that does not exist was executed")
	}
	if _, err := unix.FcntlInt(uintptr(d["stdout"]), unix.F_GETFD, 0); err != nil {
		t.Errorf("the descriptor: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

package pidfd

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestProcessOneNoticesWhatItCatchesOrBlocks(t *testing.T) {
	const blocked, caught = "SigBlk:\t0000000000004000\n", "SigCgt:\t0000000000000001\n"
	for name, c := range map[string]struct {
		status string
		signal unix.Signal
		want   bool
	}{
		"caught":             {"NSpid:\t4711\t1\n" + caught, unix.SIGHUP, true},
		"blocked":            {"NSpid:\t4711\t1\n" + blocked, unix.SIGTERM, true},
		"neither":            {"NSpid:\t4711\t1\n" + blocked + caught, unix.SIGINT, false},
		"killed":             {"NSpid:\t4711\t1\n", unix.SIGKILL, true},
		"process 12":         {"NSpid:\t4711\t12\n", unix.SIGTERM, true},
		"namespace of this":  {"NSpid:\t4711\n", unix.SIGTERM, true},
		"SIGRTMAX is caught": {"NSpid:\t4711\t1\nSigCgt:\t8000000000000000\n", 64, true},
	} {
		if got := noticed(c.status, c.signal); got != c.want {
			t.Errorf("%s: noticed: %t", name, got)
		}
	}
}

// A subshell is forked and executes nothing.
func TestSignalsWaitForTheProgram(t *testing.T) {
	held, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	defer end.Close()

	cmd := exec.Command("/bin/sh", "-c", `{ read line; } <&3 & echo $!; wait`)
	cmd.ExtraFiles = []*os.File{held}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() })

	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Kill(child, unix.SIGKILL) })

	for pid, want := range map[int]bool{cmd.Process.Pid: true, child: false} {
		if got, err := Notices(pid, unix.SIGTERM); got != want || err != nil {
			t.Errorf("process %d notices SIGTERM: %t, want %t; %v", pid, got, want, err)
		}
	}
}

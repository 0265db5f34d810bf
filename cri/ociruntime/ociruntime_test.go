package ociruntime_test

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cri/ociruntime"
)

func TestArgumentsAreThoseOfTheOCICommandLine(t *testing.T) {
	rt := ociruntime.Runtime{Program: "runc", Root: "/r", Args: []string{"--systemd-cgroup"}}
	got := strings.Join(rt.CreateArgs("id", "/b", "/p", "/s"), " ")
	want := "runc --root /r --systemd-cgroup --log /proc/self/fd/3 --log-format json" +
		" create --bundle /b --pid-file /p --console-socket /s id"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	args := rt.ExecArgs("id", "/p", "")
	if slices.Contains(args, "--tty") || !slices.Contains(args, "--detach") {
		t.Errorf("exec without a terminal: %v", args)
	}
}

func TestFailureSaysWhatTheRuntimeLogged(t *testing.T) {
	const (
		first   = `{"level":"error","msg":"first"}` + "\n"
		missing = `{"level":"error","msg":"no such file"}` + "\n"
		warning = `{"level":"warning","msg":"cleanup"}` + "\n"
	)

	for _, c := range []struct {
		name, log, stderr, want string
	}{
		{"the last error wins", first + missing, "noise", "no such file"},
		{"an error wins over a later warning", missing + warning, "", "no such file"},
		{"lines that are not JSON are skipped", "garbage\n" + `{"msg":"x","level":"fatal"}`, "", "x"},
		{"without an error it is the last line", `{"msg":"one"}` + "\n" + warning, "", "cleanup"},
		{"without a log it is standard error", "", " usage: crun\n", "usage: crun"},
		{"without anything it is the cause", "", "", "exit code 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			call := newCall(t, "create", "c")
			if _, err := call.Log().WriteString(c.log); err != nil {
				t.Fatal(err)
			}

			err := call.Failed(ociruntime.ExitCode(1), []byte(c.stderr))
			if want := "crun create c: " + c.want; err.Error() != want {
				t.Errorf("got %q, want %q", err, want)
			}
		})
	}
}

// A create that is tried again and a container that has ended for good depend on it.
func TestOnlyARuntimeThatEndedByItselfHasRefused(t *testing.T) {
	call := newCall(t, "create", "c")
	if _, err := call.Log().WriteString(`{"level":"error","msg":"half a reason"}`); err != nil {
		t.Fatal(err)
	}

	if err := call.Failed(ociruntime.ExitCode(127), nil); !errors.Is(err, ociruntime.ErrRefused) {
		t.Errorf("exit code 127: %v is not ErrRefused", err)
	}
	if err := call.Failed(errors.New("killed by SIGKILL"), nil); errors.Is(err, ociruntime.ErrRefused) {
		t.Errorf("killed: %v is ErrRefused", err)
	}

	late := errors.New("not done after 2m0s")
	err := call.Abandoned(late)
	if errors.Is(err, ociruntime.ErrRefused) || !errors.Is(err, late) ||
		strings.Contains(err.Error(), "half") {
		t.Errorf("abandoned: %v", err)
	}
}

func TestContainerThatARuntimeDoesNotKnowIsNotFound(t *testing.T) {
	for message, want := range map[string]bool{
		"container does not exist":                      true,
		"open /run/c/status: No such file or directory": true,
		"permission denied":                             false,
	} {
		err := error(&ociruntime.Error{Message: message, Cause: ociruntime.ExitCode(1)})
		if got := ociruntime.IsNotFound(err); got != want {
			t.Errorf("%s: not found is %t, want %t", message, got, want)
		}
	}

	if ociruntime.IsNotFound(os.ErrNotExist) {
		t.Error("a runtime that is not installed counts as a container that is not there")
	}
}

func newCall(t *testing.T, verb, id string) *ociruntime.Call {
	t.Helper()
	call, err := ociruntime.Runtime{Program: "/usr/bin/crun"}.NewCall(verb, id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { call.Close() })
	return call
}

// Nodes that share a machine may have containers of the same name.
func TestProcessesOfACallAreThoseOfItsNode(t *testing.T) {
	ours := ociruntime.Runtime{Program: "runc", Root: t.TempDir()}
	call, err := ours.NewCall("create", "a")
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()

	cmd := exec.Command("cat")
	cmd.ExtraFiles = []*os.File{call.Log()}
	in, err := cmd.StdinPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()

	want := []int{cmd.Process.Pid}
	if found, err := ours.Processes("create", "a"); err != nil || !slices.Equal(found, want) {
		t.Errorf("found %v, %v; want %d", found, err, want)
	}
	others := ociruntime.Runtime{Program: "runc", Root: t.TempDir()}
	for _, call := range []struct {
		runtime  ociruntime.Runtime
		verb, id string
	}{{others, "create", "a"}, {ours, "start", "a"}, {ours, "create", "b"}} {
		if found, err := call.runtime.Processes(call.verb, call.id); err != nil || len(found) > 0 {
			t.Errorf("%s %s: found %v, %v", call.verb, call.id, found, err)
		}
	}
}

package runc

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

func TestFailureSaysWhatTheRuntimeLogged(t *testing.T) {
	for _, c := range []struct{ name, log, stderr, want string }{
		{
			"the last error wins",
			`{"level":"error","msg":"first"}` + "\n" + `{"level":"error","msg":"no such file"}` + "\n",
			"noise",
			"crun create c: no such file",
		},
		{
			"an error wins over a later warning",
			`{"level":"error","msg":"bad"}` + "\n" + `{"level":"warning","msg":"cleanup"}` + "\n",
			"",
			"crun create c: bad",
		},
		{
			"lines that are no JSON are passed over",
			"garbage\n" + `{"msg":"x","level":"fatal"}`,
			"",
			"crun create c: x",
		},
		{"without a log it is stderr", "", " usage: crun\n", "crun create c: usage: crun"},
		{"without anything it is the status", "", "", "crun create c: exit code 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			log, err := NewLog("create", "c")
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()

			if _, err := log.WriteString(c.log); err != nil {
				t.Fatal(err)
			}

			err = Failure(
				Runtime{Program: "/usr/bin/crun"},
				"create",
				"c",
				errors.New("exit code 1"),
				log,
				[]byte(c.stderr),
			)
			if err.Error() != c.want {
				t.Errorf("got %q, want %q", err, c.want)
			}
		})
	}
}

func TestArguments(t *testing.T) {
	rt := Runtime{Program: "runc", Root: "/r", Args: []string{"--systemd-cgroup"}}
	got := strings.Join(rt.CreateArgs("id", "/b", "/p", "/s"), " ")
	if want := "runc --root /r --systemd-cgroup --log /proc/self/fd/3 --log-format json create --bundle " +
		"/b --pid-file /p --console-socket /s id"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if args := rt.ExecArgs("id", "/p", ""); slices.Contains(args, "--tty") ||
		!slices.Contains(args, "--detach") {
		t.Errorf("exec without a terminal: %v", args)
	}
}

func TestWhatIsNotThereIsDeletedAndHasNoState(t *testing.T) {
	testenv.Root(t)
	for _, name := range []string{"crun", "runc"} {
		t.Run(name, func(t *testing.T) {
			rt := Runtime{Program: testenv.Program(t, name, name), Root: t.TempDir()}
			for range 2 {
				if err := rt.Delete(t.Context(), "absent"); err != nil {
					t.Error(err)
				}
			}

			if _, err := rt.State(t.Context(), "absent"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("state: %v", err)
			}

			if err := rt.Start(t.Context(), "absent"); err == nil ||
				!strings.Contains(err.Error(), name+" start absent: ") {
				t.Errorf("start: %v", err)
			}
		})
	}
}

func TestASmallRuntimeIsExecutedFromSealedMemory(t *testing.T) {
	program := filepath.Join(t.TempDir(), "runtime")
	install := func(binary string) {
		data, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(program+".new", data, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(program+".new", program); err != nil {
			t.Fatal(err)
		}
	}

	rt := Runtime{Program: program}
	executable := func() string {
		path, err := rt.Executable()
		if err != nil {
			t.Fatal(err)
		}

		return path
	}

	install(testenv.Program(t, "crun", "crun"))
	first := executable()
	if again := executable(); again != first {
		t.Errorf("copied twice: %s, %s", first, again)
	}

	if out, err := exec.Command(first, "--version").Output(); err != nil ||
		!strings.Contains(string(out), "crun") {
		t.Errorf("%s --version: %q, %v", first, out, err)
	}

	if err := os.WriteFile(first, []byte("x"), 0); err == nil {
		t.Error("the copy can be written")
	}

	// an upgrade
	install(testenv.Program(t, "crun", "crun"))
	if second := executable(); second == first {
		t.Error("the copy outlived its program")
	}
	if err := os.Truncate(program, maxSealed+1); err != nil {
		t.Fatal(err)
	}
	if path := executable(); path != program {
		t.Errorf("a big program is executed as %s", path)
	}
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if path := executable(); path != program {
		t.Errorf("a script is executed as %s", path)
	}

	os.Remove(program)
	if path, err := rt.Executable(); err == nil {
		t.Errorf("a program that is gone is executed as %s", path)
	}
}

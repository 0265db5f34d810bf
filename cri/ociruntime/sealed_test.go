package ociruntime

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

func TestASmallRuntimeIsExecutedFromSealedMemory(t *testing.T) {
	crun := testenv.Program(t, "crun", "crun")
	program := filepath.Join(t.TempDir(), "runtime")
	install(t, crun, program)
	var runner Runner
	executable := func() string {
		path, err := runner.Executable(Runtime{Program: program})
		if err != nil {
			t.Fatal(err)
		}

		return path
	}

	first := executable()
	if again := executable(); again != first {
		t.Errorf("copied twice: %s, %s", first, again)
	}

	out, err := exec.Command(first, "--version").Output()
	if err != nil || !strings.Contains(string(out), "crun") {
		t.Errorf("%s --version: %q, %v", first, out, err)
	}
	if err := os.WriteFile(first, []byte("x"), 0); err == nil {
		t.Error("the copy can be written")
	}

	// An upgrade replaces the file.
	install(t, crun, program)
	if second := executable(); second == first {
		t.Error("after an upgrade the old program is executed")
	}
}

func TestARuntimeThatCannotBeSealedIsExecutedAsItIs(t *testing.T) {
	program := filepath.Join(t.TempDir(), "runtime")
	var runner Runner
	check := func(what string) {
		t.Helper()
		path, err := runner.Executable(Runtime{Program: program})
		if err != nil || path != program {
			t.Errorf("%s is executed as %q, %v", what, path, err)
		}
	}

	if err := os.WriteFile(program, []byte("\x7fELF"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(program, maxSealed+1); err != nil {
		t.Fatal(err)
	}

	check("a big program")

	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}

	check("a script")

	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if path, err := runner.Executable(Runtime{Program: program}); err == nil {
		t.Errorf("a program that is gone is executed as %s", path)
	}
}

// install replaces the file at path with a copy of program, as a package manager does.
func install(t *testing.T, program, path string) {
	t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

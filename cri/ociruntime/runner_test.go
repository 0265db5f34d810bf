package ociruntime_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/trivet-node/trivet/cri/ociruntime"
)

// script returns a runtime that is a script.
func script(t *testing.T, text string) ociruntime.Runtime {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runtime")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return ociruntime.Runtime{Program: path, Root: t.TempDir()}
}

// working returns the processes of a deletion, and kills them.
func working(t *testing.T, rt ociruntime.Runtime) []int {
	t.Helper()
	pids, err := rt.Processes("delete", "a")
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return pids
}

func TestARuntimeThatHangsEndsWithAllThatItHasStarted(t *testing.T) {
	rt := script(t, "sleep 60; true")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()

	var runner ociruntime.Runner
	began := time.Now()
	err := runner.Delete(ctx, rt, "a")
	if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 50*time.Second {
		t.Errorf("after %s: %v", took, err)
	}
	if left := working(t, rt); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

func TestWhatARuntimeLeavesIsNotWaitedFor(t *testing.T) {
	rt := script(t, "sleep 60 &")
	var runner ociruntime.Runner
	began := time.Now()
	err := runner.Delete(t.Context(), rt, "a")
	if took := time.Since(began); err != nil || took > 50*time.Second {
		t.Errorf("after %s: %v", took, err)
	}
	if left := working(t, rt); len(left) != 1 {
		t.Errorf("%v are left, want what was left", left)
	}
}

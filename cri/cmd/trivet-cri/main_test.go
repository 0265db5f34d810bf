package main

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

// built is the directory of the programs, which are made once for all tests.
var built string

func TestMain(m *testing.M) {
	os.Exit(testenv.InOwnMounts(func() int { return buildAndRun(m) }))
}

func buildAndRun(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}

	dir, err := os.MkdirTemp("", "trvc")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	built = dir
	cmd := exec.Command("go",
		"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", dir, ".", "../trivet-monitor")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build trivet-cri and trivet-monitor: %v\n%s", err, out)
		return 1
	}

	return m.Run()
}

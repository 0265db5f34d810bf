// Package nodetest gives tests a node: the programs trivet-cri and trivet-monitor as they are built, in
// directories of their own, with an image in a registry on loopback. Its tests need root.
package nodetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/patience"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

// programs are built by the first test of the process that needs them, or found built in the directory
// TRIVET_TESTS where there is no Go.
var programs struct {
	once sync.Once
	dir  string
	err  error

	// own is dir if it is to be removed.
	own string
}

// Main runs the tests in a mount namespace of their own, cleans up, and returns the exit code. Call it from
// TestMain.
func Main(m *testing.M) int {
	return testenv.InOwnMounts(func() int {
		defer func() { os.RemoveAll(programs.own) }()
		return m.Run()
	})
}

// built returns the directory of the programs.
func built(tb testing.TB) string {
	tb.Helper()
	programs.once.Do(func() {
		programs.dir = os.Getenv("TRIVET_TESTS")
		if programs.dir == "" {
			programs.dir, programs.err = build()
			programs.own = programs.dir
		}
	})
	if programs.err != nil {
		tb.Fatal(programs.err)
	}
	return programs.dir
}

// build builds the programs into a new directory, and has go test know their sources: it takes a result from
// its cache unless a package that the test imports, or a file that it has looked at, has changed.
func build() (dir string, err error) {
	dir, err = os.MkdirTemp("", "trvc")
	if err != nil {
		return "", err
	}

	root, err := moduleRoot()
	if err != nil {
		return dir, err
	}

	for _, part := range []string{"cri", "internal"} {
		if err := lookAt(filepath.Join(root, part)); err != nil {
			return dir, err
		}
	}

	const module = "github.com/trivet-node/trivet/cri/cmd/"
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", dir,
		module+"trivet-cri", module+"trivet-monitor")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build trivet-cri and trivet-monitor: %w\n%s", err, out)
	}

	return dir, nil
}

// moduleRoot returns the directory of go.mod above the test's package.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}

	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}

		above := filepath.Dir(dir)
		if above == dir {
			return "", errors.New("no go.mod above the test's package")
		}

		dir = above
	}
}

// lookAt looks at all source files of programs below a directory.
func lookAt(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		_, err = os.Stat(path)
		return err
	})
}

// link puts the programs into a directory. By paths of its own, the processes of one node are told from those
// of another.
func link(tb testing.TB, dir string) {
	tb.Helper()
	from := built(tb)
	if err := os.Mkdir(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	for _, p := range []string{"trivet-cri", "trivet-monitor"} {
		err := os.Link(filepath.Join(from, p), filepath.Join(dir, p))
		if errors.Is(err, unix.EXDEV) {
			err = copyProgram(filepath.Join(from, p), filepath.Join(dir, p))
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
}

func copyProgram(from, to string) error {
	program, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, program, 0o755)
}

const (
	limit    = 20 * time.Second
	interval = 5 * time.Millisecond
)

// Eventually waits until f returns true, and fails the test if that does not happen within 20 seconds, or as
// many times longer as a slow machine needs.
func Eventually(tb testing.TB, f func() bool) {
	tb.Helper()
	limit := patience.Of(limit)
	// Not the test's context, which has ended in a cleanup.
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for range retry.Every(ctx, interval) {
		if f() {
			return
		}
	}
	tb.Fatalf("did not happen within %v", limit)
}

// Package testenv has what root tests need: a skip that fails where tests must run, network and mount
// namespaces of their own, and a check that nothing is left behind.
package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Skip skips the test with a reason, or fails it when TRIVET_MUST_RUN is set, as in CI: a skipped test proves
// nothing.
func Skip(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if os.Getenv("TRIVET_MUST_RUN") != "" {
		tb.Fatalf("must run, but: "+format, args...)
	}
	tb.Skipf(format, args...)
}

// Root skips a test that does not run as root.
func Root(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		Skip(tb, "needs root (mounts, namespaces, cgroups)")
	}
}

// Program returns the path of a program that the test needs, such as an OCI runtime. It skips the test if
// there is none, and says which Debian package has it.
func Program(tb testing.TB, name, debianPackage string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Skip(tb, "needs %s (Debian package %s)", name, debianPackage)
	}
	return path
}

// Netns makes a network namespace, with the loopback device down, that is pinned until the test ends, and
// returns the path of the pin.
func Netns(tb testing.TB) string {
	tb.Helper()
	Root(tb)
	path := filepath.Join(ShortDir(tb), "netns")
	if err := namespace.Create(map[namespace.Kind]string{namespace.Net: path}, nil); err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(func() {
		if err := namespace.Unpin(path); err != nil {
			tb.Error(err)
		}
	})

	return path
}

// MemoryDir returns a temporary directory in memory, where the disk adds nothing to what is measured. Where
// the machine has none it is an ordinary one.
func MemoryDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "trv")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// ShortDir returns a temporary directory whose path is short enough for unix sockets; that of t.TempDir
// contains the test's name. What is still mounted below it when the test ends is unmounted and fails the
// test.
func ShortDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "trv")
	if err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(func() {
		if left, err := mount.Below(dir); err != nil || len(left) > 0 {
			tb.Errorf("mounts left behind: %v %v", left, err)
			if err := mount.UnmountBelow(dir); err != nil {
				tb.Errorf("unmount what was left below %s: %v", dir, err)

				// nothing is deleted through a mount
				return
			}
		}

		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})

	return dir
}

// Golden fails the test if text differs from testdata/NAME, or rewrites the file if UPDATE_GOLDEN is set.
func Golden(tb testing.TB, name, got string) {
	tb.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			tb.Fatal(err)
		}

		return
	}

	want, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	if got != string(want) {
		tb.Errorf("%s differs (UPDATE_GOLDEN=1 rewrites it):\n%s", path, diffLines(string(want), got))
	}
}

// diffLines returns the first line that differs.
func diffLines(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		var a, b string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d:\n- %s\n+ %s", i+1, a, b)
		}
	}

	return ""
}

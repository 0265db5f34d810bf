package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// ProjectQuotas returns a directory on a small file system of its own that counts projects: ext4 or xfs. A
// kernel that was built without project quotas skips the test, even in CI: make vm runs it on one that has
// them.
func ProjectQuotas(tb testing.TB, kind string) string {
	tb.Helper()
	return ProjectQuotasOf(tb, kind, 400<<20)
}

// ProjectQuotasOf returns what ProjectQuotas does, of so many bytes; xfs needs 300 MiB.
func ProjectQuotasOf(tb testing.TB, kind string, size int64) string {
	tb.Helper()
	Root(tb)
	mkfs, options := Program(tb, "mkfs.xfs", "xfsprogs"), []string{"-q"}
	if kind == "ext4" {
		mkfs = Program(tb, "mkfs.ext4", "e2fsprogs")
		options = []string{"-q", "-O", "quota,project", "-E", "quotatype=prjquota"}
	}

	image := filepath.Join(tb.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		tb.Fatal(err)
	}

	out, err := exec.CommandContext(tb.Context(), mkfs, append(options, image)...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%s: %v: %s", mkfs, err, out)
	}

	dir := ShortDir(tb)
	mount := exec.CommandContext(tb.Context(), "mount", "-o", "loop,prjquota", image, dir)
	if out, err := mount.CombinedOutput(); err != nil {
		tb.Skipf("this kernel has no project quotas on %s: %v: %s", kind, err, out)
	}

	tb.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			tb.Errorf("unmount %s: %v", dir, err)
		}
	})

	return dir
}

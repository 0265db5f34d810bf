package mount_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestTmpfsBindAndUnmount(t *testing.T) {
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	a, b := filepath.Join(dir, "a b"), filepath.Join(dir, "b")
	for _, d := range []string{a, b} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}

	if err := mount.Tmpfs(a, "size=1m"); err != nil {
		t.Fatal(err)
	}
	if err := mount.Bind(a, b, mount.BindOptions{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b, "f"), nil, 0o600); err == nil {
		t.Error("a read-only bind was written to")
	}

	below, err := mount.Below(dir)
	if err != nil || len(below) != 2 || below[0] != b || below[1] != a {
		t.Errorf("Below = %q, %v", below, err)
	}

	for range 2 {
		if err := mount.UnmountBelow(dir); err != nil {
			t.Error(err)
		}
	}

	if on, err := mount.Mounted(a); on || err != nil {
		t.Errorf("still mounted: %v, %v", on, err)
	}
}

func TestTmpfsIsNeverSwappedOut(t *testing.T) {
	testenv.Root(t)
	able := testenv.LinuxIs(t, 6, 4)
	if keeps := mount.KeepsTmpfsInMemory(); keeps != able {
		t.Errorf("tmpfs is kept in memory: %t, want %t", keeps, able)
	}
	if !able {
		t.Skip("needs a kernel with tmpfs noswap: Linux 6.4")
	}

	for _, options := range []string{"", "size=1m,mode=0700"} {
		dir := testenv.ShortDir(t)
		if err := mount.Tmpfs(dir, options); err != nil {
			t.Fatal(err)
		}

		t.Cleanup(func() { _ = mount.Unmount(dir) })
		table, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			t.Fatal(err)
		}

		for line := range strings.Lines(string(table)) {
			if strings.Contains(line, " "+dir+" ") && !strings.Contains(line, "noswap") {
				t.Errorf("options %q: %s", options, line)
			}
		}
	}
}

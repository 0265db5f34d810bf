package mount_test

import (
	"os"
	"path/filepath"
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
	if err := mount.Bind(a, b, false, true); err != nil {
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

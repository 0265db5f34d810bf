package mount_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestMountsAreFoundBehindALink(t *testing.T) {
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	target, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := os.MkdirAll(filepath.Join(target, "pod", "volume"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	if err := mount.Tmpfs(filepath.Join(link, "pod", "volume"), "size=1m"); err != nil {
		t.Fatal(err)
	}

	below, err := mount.Below(filepath.Join(link, "pod"))
	if err != nil || len(below) != 1 || below[0] != filepath.Join(target, "pod", "volume") {
		t.Errorf("Below = %q, %v", below, err)
	}
	if err := mount.UnmountBelow(filepath.Join(link, "pod")); err != nil {
		t.Error(err)
	}
	if on, err := mount.Mounted(filepath.Join(target, "pod", "volume")); on || err != nil {
		t.Errorf("still mounted: %v, %v", on, err)
	}
	if below, err := mount.Below(filepath.Join(dir, "none", "pod")); len(below) > 0 || err != nil {
		t.Errorf("below what is not there: %q, %v", below, err)
	}
}

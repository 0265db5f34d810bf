package btrfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/csi/btrfs"
)

// A file whose tree cannot be found is not one of zeroes.
func TestExtentsOfAMissingTreeAreAnError(t *testing.T) {
	root := fresh(t)
	f, err := os.Create(filepath.Join(root.Name(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := btrfs.Sync(root); err != nil {
		t.Fatal(err)
	}

	if extents, _, err := btrfs.Extents(f, 0); err != nil || len(extents) == 0 {
		t.Errorf("extents %v, %v", extents, err)
	}
	const none = 1 << 40
	if extents, until, err := btrfs.ExtentsIn(none, f, 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in no tree: extents %v until %d, %v", extents, until, err)
	}
}

// A limit that is set when the subvolume is being deleted leaves a group. Those of others stay.
func TestGroupsOfNoSubvolumeAreRemoved(t *testing.T) {
	root := fresh(t)
	info, err := btrfs.Stat(root)
	if err != nil {
		t.Fatal(err)
	}
	_, kept := limited(t, root, "kept")
	f, gone := limited(t, root, "gone")
	f.Close()
	if err := btrfs.Destroy(root, "gone"); err != nil {
		t.Fatal(err)
	}
	_ = btrfs.Limit(root, gone, limit)
	for freed := false; !freed; {
		if err := btrfs.Sync(root); err != nil {
			t.Fatal(err)
		}
		if freed, err = btrfs.IsFreed(root, gone); err != nil || t.Context().Err() != nil {
			t.Fatal(err)
		}
	}

	if left, err := btrfs.Leftover(root); err != nil || len(left) != 1 {
		t.Errorf("left are %q, %v", left, err)
	}
	for range 2 {
		if err := btrfs.RemoveLeftover(root); err != nil {
			t.Error(err)
		}
	}
	if left, err := btrfs.Leftover(root); err != nil || !slices.Equal(left, nil) {
		t.Errorf("left are %q, %v", left, err)
	}
	if btrfs.LimitOf(info, kept) != limit {
		t.Error("the limit of another subvolume is gone")
	}
}

package btrfs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/csi/btrfs"
)

// put writes to a file at an offset, and syncs it.
func put(t *testing.T, path string, at, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes.Repeat([]byte{1}, int(size)), at); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// countOld counts the bytes of a subvolume that its last snapshot may have had.
func countOld(t *testing.T, root *os.File, sub btrfs.Subvolume) int64 {
	t.Helper()
	last, err := btrfs.LastSnapshot(root, sub)
	if err != nil {
		t.Fatal(err)
	}
	count := btrfs.NewCount(sub, sub.Created, last)
	for !count.Done {
		if err := count.Step(root); err != nil {
			t.Fatal(err)
		}
	}
	return count.Bytes
}

// An extent that a snapshot had is old until the last block of it was written over, with or without the
// snapshot.
func TestOldExtentsAreCountedAsAWhole(t *testing.T) {
	root := fresh(t)
	if err := btrfs.Create(root, "v"); err != nil {
		t.Fatal(err)
	}
	v, err := btrfs.Open(root, "v")
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	sub, err := btrfs.Inspect(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := btrfs.OverwriteInPlace(v); err != nil {
		t.Fatal(err)
	}

	const size = 8 << 20
	file := filepath.Join(v.Name(), "f")
	put(t, file, 0, size)
	if got := countOld(t, root, sub); got != 0 {
		t.Errorf("%d bytes are old before there was a snapshot", got)
	}

	if err := btrfs.Snapshot(root, "s", v, true); err != nil {
		t.Fatal(err)
	}
	if got := countOld(t, root, sub); got != size {
		t.Errorf("%d bytes are old, want %d", got, size)
	}

	// In many pieces, and many leaves of the tree.
	for at := int64(0); at < size-4096; at += 2 * 4096 {
		put(t, file, at, 4096)
	}
	if err := btrfs.Destroy(root, "s"); err != nil {
		t.Fatal(err)
	}
	if got := countOld(t, root, sub); got != size {
		t.Errorf("after half of it was written over %d bytes are old, want %d", got, size)
	}

	put(t, file, 0, size)
	if got := countOld(t, root, sub); got != 0 {
		t.Errorf("after all of it was written over %d bytes are old", got)
	}
}

package btrfspool_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/volume"
)

// A quota group whose subvolume is gone, as who sets a limit and is too late leaves one, is removed by the
// next who keeps the pool.
func TestQuotaGroupsOfNoVolumeAreRemoved(t *testing.T) {
	n := nodetest.New(t, 4<<30)
	dir, err := os.Open(filepath.Join(n.Dir, "pool", "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()

	v := n.MustCreate(volume.Request{Name: "v", Required: 16 << 20, Backend: "btrfs"})
	root, err := btrfs.Open(dir, v.ID)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := btrfs.Inspect(root)
	root.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Delete(t.Context(), v.ID); err != nil {
		t.Fatal(err)
	}
	_ = btrfs.Limit(dir, sub, 16<<20)

	n.Eventually("the end of the subvolume", func() error {
		freed, err := btrfs.IsFreed(dir, sub)
		if err == nil && !freed {
			err = errors.Join(errors.New("it is not freed"), n.Sync())
		}
		return err
	})
	if left, err := btrfs.Leftover(dir); err != nil || len(left) != 1 {
		t.Fatalf("left are %q, %v", left, err)
	}

	defer keeping(t, n.Pool)()
	n.Eventually("no group that is left", func() error {
		left, err := btrfs.Leftover(dir)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left are %q", left)
		}
		return err
	})
}

package btrfspool_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/volume"
)

// writeOverBlocks writes over a file in blocks, in an order of its own, and syncs it.
func writeOverBlocks(path string, size, block int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()

	data := make([]byte, block)
	_, _ = rand.Read(data)
	for n, i := range mathrand.Perm(int(size / block)) {
		if _, err := f.WriteAt(data, int64(i)*block); err != nil {
			return fmt.Errorf("write %d: %w", n, err)
		}
		if n%512 == 0 {
			if err := f.Sync(); err != nil {
				return fmt.Errorf("sync after write %d: %w", n, err)
			}
		}
	}

	return f.Sync()
}

// A database that fills its volume goes on after its last snapshot was deleted, though all of its blocks are
// ones that the snapshot had: the kernel writes them to new places once more.
func TestFullVolumeIsWrittenOverWhenItsSnapshotIsGone(t *testing.T) {
	const size = 64 << 20
	n := nodetest.New(t, 4<<30)
	for _, r := range []volume.Request{
		{Name: "subvolume", Required: size, Backend: "btrfs", Access: volume.Filesystem},
		{Name: "block", Required: size, Backend: "btrfs", Access: volume.Block},
	} {
		t.Run(r.Name, func(t *testing.T) {
			v := n.MustCreate(r)
			file := n.Use(v, "pod")
			if v.Access == volume.Filesystem {
				file = filepath.Join(file, "data")
			}

			overwrite(t, file, size)
			s := n.MustCreate(volume.Request{Name: "snap-" + r.Name, Source: v.ID, Snapshot: true})
			if err := errors.Join(n.Delete(t.Context(), s.ID), n.Sync()); err != nil {
				t.Fatal(err)
			}

			for range 20 {
				if _, err := n.Available(r); err != nil {
					t.Fatal(err)
				}
				if err := n.Sync(); err != nil {
					t.Fatal(err)
				}
			}
			for round := range 2 {
				if err := writeOverBlocks(file, size, 8192); err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
			}

			n.Remove(v.ID, "pod")
		})
	}
}

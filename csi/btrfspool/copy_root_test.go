package btrfspool_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/volume"
)

// kinds are for one volume of each kind that the pool has.
func kinds(size int64) []volume.Request {
	return []volume.Request{
		{Name: "plain", Required: size, Backend: "btrfs"},
		{Name: "cow", Required: size, Backend: "btrfs", NoCOW: new(false)},
		{Name: "xfs", Required: size, Backend: "btrfs", FSType: "xfs"},
		{Name: "ext4", Required: size, Backend: "btrfs", FSType: "ext4"},
		{Name: "raw", Required: size, Backend: "btrfs", Access: volume.Block},
	}
}

// A snapshot has what was there, whatever becomes of the volume; what is restored from it is a volume of its
// own.
func TestRestoredVolumeHasWhatWasThere(t *testing.T) {
	const size = 320 << 20
	n := nodetest.New(t, 8<<30)
	for _, r := range kinds(size) {
		t.Run(r.Name, func(t *testing.T) {
			v := n.MustCreate(r)
			target := n.Use(v, "pod")
			n.Write(v, target)
			s := n.MustCreate(volume.Request{Name: r.Name, Source: v.ID, Snapshot: true})
			n.Overwrite(v, target, "something else")

			restored := n.MustCreate(volume.Request{
				Name:     "restored-" + r.Name,
				Required: size + 64<<20,
				Source:   s.ID,
				Access:   v.Access,
			})
			n.Kill()
			n.Start()

			n.Remove(v.ID, "pod")
			if err := n.Delete(t.Context(), s.ID); err != nil {
				t.Fatal(err)
			}

			at := n.Use(restored, "pod")
			restored.Name = v.Name
			n.CheckRead(restored, at)
			if _, usage, err := n.Stats(restored.ID, at); err != nil || usage.Total < size {
				t.Errorf("usage %+v, %v", usage, err)
			}
			n.Remove(restored.ID, "pod")
		})
	}
}

// A clone and its source are in use at the same time, and change apart.
func TestCloneIsIndependent(t *testing.T) {
	n := nodetest.New(t, 8<<30)
	for _, r := range kinds(320 << 20) {
		t.Run(r.Name, func(t *testing.T) {
			v := n.MustCreate(r)
			target := n.Use(v, "pod")
			n.Write(v, target)
			clone := n.MustCreate(volume.Request{Name: "clone-" + r.Name, Source: v.ID, Access: v.Access})
			at := n.Use(clone, "pod")
			n.Overwrite(clone, at, "changed")
			n.CheckRead(v, target)
			n.Overwrite(v, target, "changed, too")
			n.Remove(v.ID, "pod")
			n.Remove(clone.ID, "pod")
		})
	}
}

// Writing over all that a snapshot has needs room beside it, which the snapshot was promised.
func TestVolumeWithASnapshotCanBeOverwritten(t *testing.T) {
	const size = 128 << 20
	n := nodetest.New(t, 4<<30)
	for _, r := range kinds(size) {
		t.Run(r.Name, func(t *testing.T) {
			if r.FSType == "xfs" {
				r.Required = 320 << 20
			}

			v := n.MustCreate(r)
			file := n.Use(v, "pod")
			if v.Access == volume.Filesystem {
				file = filepath.Join(file, "data")
			}

			const data = 100 << 20
			overwrite(t, file, data)
			for range 2 {
				s := n.MustCreate(volume.Request{Name: rand.Text(), Source: v.ID, Snapshot: true})
				overwrite(t, file, data)
				if err := n.Delete(t.Context(), s.ID); err != nil {
					t.Fatal(err)
				}
			}

			n.Remove(v.ID, "pod")
		})
	}
}

func overwrite(t *testing.T, path string, size int64) {
	t.Helper()
	if err := writeOver(path, size); err != nil {
		t.Fatal(err)
	}
}

// writeOver writes over a file, in an order of its own, and syncs it.
func writeOver(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()

	block := make([]byte, 1<<20)
	for _, i := range mathrand.Perm(int(size / int64(len(block)))) {
		_, _ = rand.Read(block)
		if _, err := f.WriteAt(block, int64(i)*int64(len(block))); err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
	}

	return f.Sync()
}

// When the snapshots of a volume are gone, it holds no more than before.
func TestSizeHoldsAgainAfterTheSnapshots(t *testing.T) {
	const size = 128 << 20
	n := nodetest.New(t, 4<<30)
	v := n.MustCreate(volume.Request{Name: "v", Required: size, Backend: "btrfs"})
	target := n.Use(v, "pod")
	overwrite(t, filepath.Join(target, "data"), 100<<20)
	s := n.MustCreate(volume.Request{Name: "s", Source: v.ID, Snapshot: true})
	overwrite(t, filepath.Join(target, "data"), 100<<20)
	if err := n.Delete(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}

	n.Eventually("the limit is what it was", func() error {
		err := os.WriteFile(filepath.Join(target, "more"), make([]byte, 60<<20), 0o600)
		if err := errors.Join(os.Remove(filepath.Join(target, "more")), n.Sync()); err != nil {
			return err
		}
		if !errors.Is(err, unix.EDQUOT) {
			return fmt.Errorf("writing more than fits: %w", errors.Join(errors.New("no EDQUOT"), err))
		}
		return nil
	})
	n.Remove(v.ID, "pod")
}

package btrfspool_test

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
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

// New data that a volume has because of the room that its snapshot had stays, and no more is written than
// takes the place of what the snapshot had. Nobody is promised those bytes until they are deleted.
func TestNewDataIsNotPromisedAgainWhenTheSnapshotIsGone(t *testing.T) {
	const size = 128 << 20
	n := nodetest.New(t, 4<<30)
	available := func() int64 {
		bytes, err := n.Available(volume.Request{Backend: "btrfs", Access: volume.Filesystem})
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}

	v := n.MustCreate(volume.Request{Name: "v", Required: size, Backend: "btrfs"})
	target := n.Use(v, "pod")
	data, more := filepath.Join(target, "data"), filepath.Join(target, "more")
	overwrite(t, data, 100<<20)
	before := available()
	s := n.MustCreate(volume.Request{Name: "s", Source: v.ID, Snapshot: true})
	overwrite(t, more, 100<<20)
	if err := errors.Join(n.Delete(t.Context(), s.ID), n.Sync()); err != nil {
		t.Fatal(err)
	}

	const beyond = 200<<20 - size - size/64
	if now := available(); now > before-beyond {
		t.Errorf("%d bytes are available, %d were; %d are held", now, before, int64(beyond))
	}
	n.Eventually("no more is written", func() error {
		err := writeOver(filepath.Join(target, "yet more"), 48<<20)
		if err := errors.Join(os.Remove(filepath.Join(target, "yet more")), n.Sync()); err != nil {
			return err
		}
		if !errors.Is(err, unix.EDQUOT) {
			return errors.Join(errors.New("48 MiB more are written"), err)
		}
		return nil
	})

	n.Kill()
	n.Start()
	if now := available(); now > before-beyond {
		t.Errorf("after a restart %d bytes are available, %d were", now, before)
	}

	if err := errors.Join(os.Remove(more), n.Sync()); err != nil {
		t.Fatal(err)
	}
	overwrite(t, data, 100<<20)
	n.Eventually("the size holds again", func() error {
		if now := available(); now < before {
			return fmt.Errorf("%d bytes are available, %d were", now, before)
		}
		return errors.Join(writeOver(more, 16<<20), os.Remove(more))
	})
	n.Remove(v.ID, "pod")
}

// Extents that a snapshot had stay charged as a whole when the snapshot is gone. An image has its size
// nevertheless.
func TestImageIsFullAtItsSizeWhenItsSnapshotsAreGone(t *testing.T) {
	const size = 128 << 20
	n := nodetest.New(t, 4<<30)
	v := n.MustCreate(volume.Request{
		Name:     "v",
		Required: size,
		Backend:  "btrfs",
		Access:   volume.Block,
	})

	device := n.Use(v, "pod")
	for range 3 {
		overwrite(t, device, size)
		s := n.MustCreate(volume.Request{Name: rand.Text(), Source: v.ID, Snapshot: true})
		overwriteHalf(t, device, size)
		if err := errors.Join(n.Delete(t.Context(), s.ID), n.Sync()); err != nil {
			t.Fatal(err)
		}
		overwrite(t, device, size)
	}

	// As the looks find it that follow a restart.
	n.Kill()
	n.Start()
	for range 3 {
		if _, err := n.Available(volume.Request{Backend: "btrfs", Access: volume.Block}); err != nil {
			t.Error(err)
		}
		overwrite(t, device, size)
	}

	n.Remove(v.ID, "pod")
}

// overwriteHalf writes over every other 64 KiB, and syncs that.
func overwriteHalf(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	block := make([]byte, 64<<10)
	for at := int64(0); at < size && err == nil; at += 2 * int64(len(block)) {
		_, err = f.WriteAt(block, at)
	}
	if err := errors.Join(err, f.Sync()); err != nil {
		t.Fatal(err)
	}
}

// A backup of blocks reads the snapshot of a file system from a raw block volume.
func TestSnapshotOfAFileSystemIsReadAsADevice(t *testing.T) {
	n := nodetest.New(t, 8<<30)
	for _, r := range kinds(320 << 20) {
		t.Run(r.Name, func(t *testing.T) {
			v := n.MustCreate(r)
			n.Write(v, n.Use(v, "pod"))
			s := n.MustCreate(volume.Request{Name: r.Name, Source: v.ID, Snapshot: true})
			request := volume.Request{Name: "blocks-" + r.Name, Source: s.ID, Access: volume.Block}
			if v.FSType == "btrfs" {
				if _, err := n.Create(t.Context(), request); !errors.Is(err, volume.ErrInvalid) {
					t.Errorf("a subvolume as a device: %v", err)
				}
				n.Remove(v.ID, "pod")
				return
			}

			device := n.MustCreate(request)
			want := digest(t, filepath.Join(n.Dir, "pool", "volumes", s.ID, "image"))
			if got := digest(t, n.Use(device, "pod")); got != want {
				t.Error("the device does not have the blocks of the snapshot")
			}
			n.Remove(device.ID, "pod")
			n.Remove(v.ID, "pod")
		})
	}
}

// digest is that of all bytes of a file or device.
func digest(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	sum := sha256.New()
	if n, err := io.Copy(sum, f); err != nil || n == 0 {
		t.Fatalf("%d bytes of %s: %v", n, path, err)
	}
	return [sha256.Size]byte(sum.Sum(nil))
}

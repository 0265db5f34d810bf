package btrfspool_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/mount"
)

// The record of a volume is synced before the transaction that made it: after a power loss the volume may be
// missing, and that is no loss.
func TestPowerLossRightAfterCreate(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	lost := n.MustCreate(volume.Request{Name: "lost", Required: 16 << 20})
	n.Kill()
	image := filepath.Join(n.Dir, "pool.img")
	old := filepath.Join(n.Dir, "old.img")
	if err := errors.Join(n.Sync(), copyFile(image, old)); err != nil {
		t.Fatal(err)
	}

	n.Start()
	fresh := n.MustCreate(volume.Request{Name: "fresh", Required: 16 << 20})
	n.Kill()
	// The disk as it was before the transaction of the second volume.
	if err := unix.Unmount(filepath.Join(n.Dir, "pool"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(old, image); err != nil {
		t.Fatal(err)
	}
	if report := n.Start(); len(report.Damaged) > 0 || report.Recovered != 2 {
		t.Errorf("report %+v", report)
	}

	n.Use(fresh, "pod")
	n.Remove(fresh.ID, "pod")

	// A volume that was there and is gone is something else.
	root, err := os.Open(filepath.Join(n.Dir, "pool", "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()

	if err := btrfs.Destroy(root, lost.ID); err != nil {
		t.Fatal(err)
	}

	n.Kill()
	if report := n.Start(); !errors.Is(report.Damaged[lost.ID], volume.ErrDamaged) {
		t.Errorf("report %+v", report)
	}

	if err := n.Stage(t.Context(), lost.ID, n.StagePath(lost.ID), publish.Use{
		Access: volume.Filesystem,
	}); !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("staging a lost volume: %v", err)
	}

	if err := n.Delete(t.Context(), lost.ID); err != nil {
		t.Error(err)
	}
}

// Mounting the pool after a power loss replays the log of synced files, and commits that as the very
// transaction that the lost volume was made in.
func TestPowerLossWithALogToReplay(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	old := n.MustCreate(volume.Request{Name: "old", Required: 16 << 20})
	target := n.Use(old, "pod")
	if err := n.Sync(); err != nil {
		t.Fatal(err)
	}

	fresh := n.MustCreate(volume.Request{Name: "fresh", Required: 16 << 20})
	n.Write(old, target)
	losePower(t, n)

	// The first start is killed when the pool is mounted and no volume is recovered.
	p, err := btrfspool.Open(t.Context(), btrfspool.Config{Dir: n.Dir, Instance: n.Instance, Most: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}

	p.Close(false)
	if _, err := os.Stat(filepath.Join(n.Dir, "pool", "volumes", fresh.ID)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the volume was on disk: %v", err)
	}
	if report := n.Start(); len(report.Damaged) > 0 || report.Recovered != 2 {
		t.Errorf("report %+v", report)
	}

	n.CheckRead(old, n.Use(old, "pod"))
	n.Remove(old.ID, "pod")
	n.Use(fresh, "pod")
	n.Remove(fresh.ID, "pod")
}

// A raw volume is its file, which nobody else syncs before it is used.
func TestFileOfARawVolumeIsThereAfterAPowerLoss(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	raw := n.MustCreate(volume.Request{
		Name:     "raw",
		Required: 16 << 20,
		Backend:  "btrfs",
		Access:   volume.Block,
	})

	losePower(t, n)

	p, err := btrfspool.Open(t.Context(), btrfspool.Config{Dir: n.Dir, Instance: n.Instance, Most: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	p.Close(false)
	st, err := os.Stat(filepath.Join(n.Dir, "pool", "volumes", raw.ID, "image"))
	if err != nil || st.Size() != 16<<20 {
		t.Errorf("the file of the volume: %v, %v", st, err)
	}

	if report := n.Start(); len(report.Damaged) > 0 {
		t.Errorf("report %+v", report)
	}
	n.Use(raw, "pod")
	n.Remove(raw.ID, "pod")
}

// losePower ends the node, and leaves it what is on its disk now: what the kernel has not written is lost.
func losePower(t *testing.T, n *nodetest.Node) {
	t.Helper()
	image, disk := filepath.Join(n.Dir, "pool.img"), filepath.Join(n.Dir, "disk.img")
	if err := copyFile(image, disk); err != nil {
		t.Fatal(err)
	}

	n.Kill()
	if err := mount.UnmountBelow(n.Dir); err != nil {
		t.Fatal(err)
	}

	n.AwaitNoDevices()
	if err := os.Rename(disk, image); err != nil {
		t.Fatal(err)
	}
}

// copyFile copies data only, holes stay holes.
func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()

	st, err := src.Stat()
	if err != nil {
		return err
	}

	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	defer dst.Close()

	if err := dst.Truncate(st.Size()); err != nil {
		return err
	}

	var at int64
	for {
		data, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}

		hole, err := unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}

		buf := make([]byte, hole-data)
		if _, err := src.ReadAt(buf, data); err != nil {
			return err
		}
		if _, err := dst.WriteAt(buf, data); err != nil {
			return err
		}

		at = hole
	}
}

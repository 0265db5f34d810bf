package loopfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/testenv"
)

// The kernel refuses to grow an ext4 in use to whom it did not give CAP_SYS_RESOURCE. Then it grows when it
// is staged the next time.
func TestExt4GrowsAtTheLatestWhenItIsStagedAgain(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	testenv.Program(t, "resize2fs", "e2fsprogs")
	v := n.MustCreate(volume.Request{
		Name:     "v",
		Required: 64 << 20,
		Backend:  "image",
		FSType:   "ext4",
	})

	target := n.Use(v, "pod")
	n.Write(v, target)
	if _, err := n.Grow(t.Context(), v.ID, 256<<20, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := n.GrowStaged(t.Context(), v.ID); err != nil && !errors.Is(err, volume.ErrInUse) {
		t.Errorf("growing in use: %v", err)
	}

	n.Leave(v.ID, "pod")
	target = n.Use(v, "pod")
	if _, err := n.GrowStaged(t.Context(), v.ID); err != nil {
		t.Errorf("growing after it was staged again: %v", err)
	}

	n.CheckRead(v, target)
	if _, usage, err := n.Stats(v.ID, target); err != nil || usage.Total < 220<<20 {
		t.Errorf("usage %+v, %v", usage, err)
	}

	n.Remove(v.ID, "pod")
}

// An image has all its blocks from the start.
func TestImageKeepsItsPromiseOnAFullDisk(t *testing.T) {
	n := nodetest.NewOnDisk(t, 1<<30, 512<<20)
	v := n.MustCreate(volume.Request{
		Name:     "v",
		Required: 128 << 20,
		Backend:  "image",
		FSType:   "ext4",
	})

	target := n.Use(v, "pod")
	defer n.FillDisk()()

	if written := n.Fill(target, 256<<20); written < 100<<20 {
		t.Errorf("only %d bytes of 128 MiB could be written", written)
	}

	f, err := os.Open(filepath.Join(target, "filled"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Errorf("synced: %v", err)
	}

	n.Remove(v.ID, "pod")
}

// The directory may be a disk of its own that is not mounted when the driver starts. In an empty one volumes
// would seem to be gone, and their deletion would leave their content behind.
func TestDirectoryOfImagesIsNotMadeInPlaceOfTheOneThatHasThem(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	request := func(name string) volume.Request {
		return volume.Request{
			Name:     name,
			Required: 16 << 20,
			Backend:  "image",
			Access:   volume.Filesystem,
			FSType:   "ext4",
		}
	}
	v, deleted := n.MustCreate(request("v")), n.MustCreate(request("deleted"))
	n.Write(v, n.Use(v, "pod"))
	n.Leave(v.ID, "pod")

	n.Kill()
	images := filepath.Join(n.Dir, "images")
	if err := os.Rename(images, images+"-away"); err != nil {
		t.Fatal(err)
	}
	n.Start()
	_, _, used := n.Acquire(t.Context(), v.ID)
	_, made := n.Create(t.Context(), request("new"))
	for what, err := range map[string]error{
		"used":    used,
		"made":    made,
		"deleted": n.Delete(t.Context(), deleted.ID),
	} {
		if !errors.Is(err, volume.ErrUnavailable) || !strings.Contains(err.Error(), images) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := os.Lstat(images); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a directory: %v", err)
	}

	// The disk is mounted.
	if err := os.Rename(images+"-away", images); err != nil {
		t.Fatal(err)
	}
	n.Eventually("the volume can be used again", func() error {
		now, err := n.Get(v.ID)
		return errors.Join(err, now.Damage, now.Trouble)
	})
	n.CheckRead(v, n.Use(v, "pod"))
	n.Remove(v.ID, "pod")
}

func TestDamagedVolumeIsNotGrown(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	v := n.MustCreate(volume.Request{Name: "v", Required: 16 << 20, Backend: "image"})
	n.Use(v, "a")
	n.Kill()
	image := filepath.Join(n.Dir, "images", v.ID+".img")
	if err := os.Rename(image, image+".away"); err != nil {
		t.Fatal(err)
	}

	n.Start()
	if _, err := n.GrowStaged(t.Context(), v.ID); !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("growing: %v", err)
	}
	if err := os.Rename(image+".away", image); err != nil {
		t.Fatal(err)
	}

	n.Kill()
	n.Start()
	n.Remove(v.ID, "a")
}

// A process that looks for its own loop device opens all of them for a moment.
func TestDeletionOutlivesAGlanceAtItsDevice(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	v := n.MustCreate(volume.Request{Name: "raw", Required: 16 << 20, Access: volume.Block})
	n.Use(v, "a")
	found, err := loop.Find(loop.TagOf(n.Instance, v.ID))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}

	n.Leave(v.ID, "a")

	done := make(chan error, 1)
	go func() { done <- n.Delete(t.Context(), v.ID) }()
	for _, dev := range found {
		select {
		case err := <-done:
			t.Fatalf("deleted at once, or not at all: %v", err)
		case <-time.After(50 * time.Millisecond):
		}

		dev.Close()
	}

	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A power loss may leave a file that was made and whose record never reached the disk. It was never
// acknowledged.
func TestImageThatNobodyEverUsedGivesWay(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	request := volume.Request{
		Name:     "new",
		Required: 16 << 20,
		Backend:  "image",
		FSType:   "ext4",
	}

	v := n.MustCreate(request)
	n.Kill()
	if err := os.Remove(filepath.Join(n.Dir, "volumes", v.ID+".json")); err != nil {
		t.Fatal(err)
	}
	if report := n.Start(); len(report.Strays) > 0 {
		t.Errorf("left alone: %v", report.Strays)
	}

	n.Remove(n.MustCreate(request).ID)
}

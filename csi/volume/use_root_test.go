package volume_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/csi/volume"
)

// A pod makes a subvolume in its volume and asks that it be charged to nobody. It gets no further than the
// next look at volumes in use.
func TestPodThatLooksForAWayPastItsSizeIsStopped(t *testing.T) {
	n := newNode(t, 1<<30)
	v := n.create(volume.Request{Name: "v", Required: 16 << 20})
	target := n.publish(v, "pod")
	root, err := os.Open(target)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()

	createUncharged(t, root, "free")
	f, err := os.Create(filepath.Join(target, "free", "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	if _, err := f.Write(make([]byte, 32<<20)); err != nil && !errors.Is(err, unix.EDQUOT) {
		t.Fatal(err)
	}

	// the same block again and again, synced: more space is asked for each time, none is kept
	for deadline := time.Now().Add(10 * time.Second); ; {
		_, err := f.WriteAt(make([]byte, 4096), 0)
		if errors.Is(err, unix.EDQUOT) || errors.Is(f.Sync(), unix.EDQUOT) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("twice the volume's size is written, and more can be: %v", err)
		}
	}

	f.Close()
	root.Close()
	n.remove(v.ID, "pod")
}

// createUncharged is BTRFS_IOC_SUBVOL_CREATE_V2 with an empty list of quota groups, which needs no privilege.
func createUncharged(t *testing.T, parent *os.File, name string) {
	t.Helper()
	var inherit [9]uint64
	arg := struct {
		fd                   int64
		transid, flags, size uint64
		inherit              unsafe.Pointer
		_                    [2]uint64
		name                 [4040]byte
	}{flags: 1 << 2, size: uint64(unsafe.Sizeof(inherit)), inherit: unsafe.Pointer(&inherit)}

	copy(arg.name[:], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, parent.Fd(), 1<<30|4096<<16|0x94<<8|24, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		t.Fatal(errno)
	}
}

// What is copied from one volume to another by reflink is charged to the first one only, and survives it.
func TestCopiesOfADeletedVolumeCount(t *testing.T) {
	n := newNode(t, 2<<30)
	const size = 512 << 20
	old, copied := n.create(volume.Request{
		Name:     "old",
		Required: size,
	}), n.create(volume.Request{Name: "new", Required: size})

	from, to := n.publish(old, "pod"), n.publish(copied, "pod")
	fill(t, from, 400<<20)
	src, err := os.Open(filepath.Join(from, "filled"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()

	dst, err := os.Create(filepath.Join(to, "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()

	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(src.Close(), dst.Close()); err != nil {
		t.Fatal(err)
	}

	available := func() int64 {
		free, err := n.Available(volume.Request{Backend: "btrfs", Access: volume.Filesystem})
		if err != nil {
			t.Fatal(err)
		}

		return free
	}

	before := available()
	n.remove(old.ID, "pod")

	// the kernel takes deleted volumes apart in the background
	for deadline := time.Now().Add(time.Minute); ; {
		free := available()
		if free <= before+size-400<<20 {
			break
		}

		if time.Now().After(deadline) {
			t.Fatalf("%d bytes were available beside a volume of %d; it was deleted, 400 MiB of it live "+
				"on, and %d are available", before, int64(size), free)
		}

		// a start counts anew
		n.kill()
		n.start()
	}

	n.remove(copied.ID, "pod")
}

func TestFailedPublishLeavesNoTrace(t *testing.T) {
	n := newNode(t, 1<<30)
	v := n.create(volume.Request{Name: "v", Required: 16 << 20})
	u := volume.Use{Access: volume.Filesystem, SingleWriter: true}
	if err := n.Stage(t.Context(), v.ID, n.stagePath(v.ID), u); err != nil {
		t.Fatal(err)
	}

	file := n.target(v.ID, "a")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o750), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := n.Publish(t.Context(), v.ID, file, u); err == nil {
		t.Fatal("a directory was mounted on a file")
	}
	if err := n.Publish(t.Context(), v.ID, n.target(v.ID, "b"), u); err != nil {
		t.Errorf("the only pod: %v", err)
	}
	if err := n.Publish(t.Context(), v.ID, n.target(v.ID, "c"), u); !errors.Is(err, volume.ErrInUse) {
		t.Errorf("a second one: %v", err)
	}

	n.remove(v.ID, "b")
}

func TestReadOnlyByMountOptionMayBeRepeated(t *testing.T) {
	n := newNode(t, 1<<30)
	for _, r := range []volume.Request{
		{Name: "b", Required: 16 << 20},
		{Name: "e", Required: 16 << 20, Backend: "image"},
	} {
		v := n.create(r)
		u := volume.Use{Access: volume.Filesystem, Options: []string{"ro"}}
		for range 2 {
			if err := errors.Join(n.Stage(t.Context(), v.ID, n.stagePath(v.ID), u), n.Publish(t.Context(), v.ID, n.target(v.ID, "a"), u)); err != nil {
				t.Errorf("%s: %v", r.Name, err)
			}
		}

		n.remove(v.ID, "a")
	}
}

func TestDamagedVolumeIsNotGrown(t *testing.T) {
	n := newNode(t, 1<<30)
	v := n.create(volume.Request{Name: "v", Required: 16 << 20, Backend: "image"})
	n.publish(v, "a")
	n.kill()
	image := filepath.Join(n.dir, "images", v.ID+".img")
	if err := os.Rename(image, image+".away"); err != nil {
		t.Fatal(err)
	}

	n.start()
	if _, err := n.GrowAttached(t.Context(), v.ID); !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("growing: %v", err)
	}
	if err := os.Rename(image+".away", image); err != nil {
		t.Fatal(err)
	}

	n.kill()
	n.start()
	n.remove(v.ID, "a")
}

// Whoever looks for his own loop device opens all of them for a moment.
func TestDeletionOutlivesAGlanceAtItsDevice(t *testing.T) {
	n := newNode(t, 1<<30)
	v := n.create(volume.Request{Name: "raw", Required: 16 << 20, Access: volume.Block})
	n.publish(v, "a")
	found, err := loop.Find(loop.TagOf(n.instance(), v.ID))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	if err := errors.Join(n.Unpublish(t.Context(), v.ID, n.target(v.ID, "a")), n.Unstage(t.Context(), v.ID, n.stagePath(v.ID))); err != nil {
		t.Fatal(err)
	}

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

func TestAvailableKnowsTheSmallestVolume(t *testing.T) {
	n := newNode(t, 1<<30)
	n.restartWithMost(2 << 30)
	free := func(fsType string) int64 {
		bytes, err := n.Available(volume.Request{Access: volume.Filesystem, FSType: fsType})
		if err != nil {
			t.Fatal(err)
		}

		return bytes
	}

	pool := free("")
	if disk := free("xfs"); disk == pool {
		t.Errorf("volumes with xfs are no part of the pool, which has %d", pool)
	}

	n.create(volume.Request{Name: "most", Required: free("xfs") - 200<<20, Access: volume.Block})
	if xfs, ext4 := free("xfs"), free("ext4"); xfs != 0 || ext4 == 0 {
		t.Errorf("below 300 MiB there is no xfs: %d bytes for xfs, %d for ext4", xfs, ext4)
	}

	n.remove(volume.ID("most"))
}

// All backends take from the same bytes, of which two drivers on one disk are each given a part.
func TestBackendsTogetherPromiseNoMoreThanTheirPart(t *testing.T) {
	n := newNode(t, 1<<30)
	n.restartWithMost(1 << 30)
	n.create(volume.Request{Name: "image", Required: 400 << 20, Backend: "image"})
	n.create(volume.Request{Name: "pool", Required: 400 << 20, Backend: "btrfs"})
	for _, backend := range []string{"image", "btrfs"} {
		r := volume.Request{
			Name:     "another",
			Required: 400 << 20,
			Backend:  backend,
			Access:   volume.Filesystem,
		}
		if _, err := n.Create(t.Context(), r); !errors.Is(err, volume.ErrFull) {
			t.Errorf("1200 of 1024 MiB were promised with backend %s: %v", backend, err)
		}
		if free, err := n.Available(r); err != nil || free != 224<<20 {
			t.Errorf("backend %s offers %d bytes, %v", backend, free, err)
		}
	}
}

// kubelet binds the device from where it is published to a path of its own, and asks there.
func TestStatsOfADeviceThatIsBoundElsewhere(t *testing.T) {
	n := newNode(t, 1<<30)
	v, other := n.create(volume.Request{Name: "raw", Required: 16 << 20, Access: volume.Block}),
		n.create(volume.Request{Name: "other", Required: 16 << 20, Access: volume.Block})
	published, bound := n.publish(v, "pod"), filepath.Join(n.dir, "volumeDevices/pv/dev/uid")
	n.publish(other, "pod")
	err := errors.Join(os.MkdirAll(filepath.Dir(bound), 0o750), os.WriteFile(bound, nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(published, bound, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if _, usage, err := n.Stats(t.Context(), v.ID, bound); err != nil || usage.Total != v.Size {
		t.Errorf("usage %+v, %v", usage, err)
	}
	if _, _, err := n.Stats(t.Context(), other.ID, bound); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("of another volume: %v", err)
	}
	if err := unix.Unmount(bound, 0); err != nil {
		t.Fatal(err)
	}

	n.remove(v.ID, "pod")
	n.remove(other.ID, "pod")
}

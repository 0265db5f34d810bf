package btrfspool_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/volume"
)

// Every volume can be filled to its size, although together they are all that the pool would promise.
func TestPromisesAreKept(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	const size = 100 << 20
	var volumes []volume.Volume
	for i := 0; ; i++ {
		v, err := n.Create(t.Context(), volume.Request{
			Name:     fmt.Sprintf("v%d", i),
			Required: size,
			Backend:  "btrfs",
			Access:   volume.Filesystem,
		})
		if errors.Is(err, volume.ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}

		volumes = append(volumes, v)
	}

	if len(volumes) < 7 {
		t.Errorf("a pool of 1 GiB promised only %d volumes of 100 MiB", len(volumes))
	}

	if free, err := n.Available(volume.Request{
		Backend: "btrfs",
		Access:  volume.Filesystem,
	}); err != nil || free >= size {
		t.Errorf("%d bytes are still offered, %v", free, err)
	}

	for i, v := range volumes {
		target := n.Use(v, "pod")

		// Many small files cost the most metadata.
		if i == 0 {
			smallFiles(t, target, 10_000)
			continue
		}

		if got := n.Fill(target, size); got < size {
			t.Errorf("volume %d of %d could be filled with %d bytes only", i, len(volumes), got)
		}
	}

	for _, v := range volumes {
		n.Remove(v.ID, "pod")
	}

	if free, err := n.Available(volume.Request{
		Backend: "btrfs",
		Access:  volume.Filesystem,
	}); err != nil || free < int64(len(volumes))*size {
		t.Errorf("after all volumes were deleted %d bytes are offered, %v", free, err)
	}
}

func smallFiles(t *testing.T, dir string, count int) {
	t.Helper()
	for i := range count {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, 3000), 0o600); err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
	}
}

// A pod makes a subvolume in its volume and asks that it be charged to nobody. It gets no further than the
// next look at volumes in use.
func TestPodThatLooksForAWayPastItsSizeIsStopped(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	v := n.MustCreate(volume.Request{Name: "v", Required: 16 << 20})
	target := n.Use(v, "pod")
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

	// The same block each time, synced: more space is asked for, and none is kept.
	deadline := time.Now().Add(time.Minute)
	for {
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
	n.Remove(v.ID, "pod")
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
	const createV2 = 1<<30 | 4096<<16 | 0x94<<8 | 24
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, parent.Fd(), createV2, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		t.Fatal(errno)
	}
}

// reflink copies a file so that both share the same space.
func reflink(t *testing.T, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()

	dst, err := os.Create(to)
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
}

// What is copied from one volume to another by reflink is charged to the first one only, and survives it.
func TestCopiesOfADeletedVolumeCount(t *testing.T) {
	n := nodetest.New(t, 2<<30)
	const size = 512 << 20
	old := n.MustCreate(volume.Request{Name: "old", Required: size})
	copied := n.MustCreate(volume.Request{Name: "new", Required: size})
	from, to := n.Use(old, "pod"), n.Use(copied, "pod")
	n.Fill(from, 400<<20)
	reflink(t, filepath.Join(from, "filled"), filepath.Join(to, "copy"))

	available := func() int64 {
		free, err := n.Available(volume.Request{Backend: "btrfs", Access: volume.Filesystem})
		if err != nil {
			t.Fatal(err)
		}

		return free
	}

	before := available()
	n.Remove(old.ID, "pod")

	// The kernel takes deleted volumes apart in the background.
	deadline := time.Now().Add(time.Minute)
	for {
		free := available()
		if free <= before+size-400<<20 {
			break
		}

		if time.Now().After(deadline) {
			t.Fatalf("%d bytes were available beside a volume of %d; it was deleted, 400 MiB of it live "+
				"on, and %d are available", before, int64(size), free)
		}

		// A start counts again.
		n.Kill()
		n.Start()
	}

	n.Remove(copied.ID, "pod")
}

package localvolume_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/localvolume"
)

// mebibytes is the size of the file system at path.
func mebibytes(t *testing.T, path string) int {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		t.Fatal(err)
	}
	return int(fs.Blocks * uint64(fs.Bsize) >> 20)
}

// It is xfs, because ext4 lets nobody grow it in use who has no CAP_SYS_RESOURCE.
func TestAFileSystemGrowsWithItsDevice(t *testing.T) {
	n := newNode(t)
	testenv.Program(t, "mkfs.xfs", "xfsprogs")
	file := filepath.Join(t.TempDir(), "disk")
	v := localvolume.Volume{Name: "pv", Path: deviceOf(t, file, 320<<20), FSType: "xfs"}
	n.mount(v, "a")

	if err := os.Truncate(file, 640<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "losetup", "--set-capacity", v.Path)

	for range 2 {
		if err := n.Grow(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		if has := mebibytes(t, n.dir("a", "pv")); has < 480 {
			t.Errorf("the file system has %d MiB, the device 640", has)
		}
	}
}

// The files of btrfs have a device number that is of no device.
func TestPodsShareBtrfsOnADevice(t *testing.T) {
	n := newNode(t)
	testenv.Program(t, "mkfs.btrfs", "btrfs-progs")
	file := filepath.Join(t.TempDir(), "disk")
	v := localvolume.Volume{Name: "pv", Path: deviceOf(t, file, 320<<20), FSType: "btrfs"}
	n.mount(v, "a")
	n.mount(v, "b")
	if err := n.Grow(t.Context(), v); err != nil {
		t.Error(err)
	}

	other := localvolume.Volume{Name: "pv", Path: device(t)}
	if err := n.Mount(t.Context(), other, n.dir("c", "pv")); err == nil {
		t.Error("another device was taken for the one that is mounted")
	}
}

func TestADirectoryNeedsNotGrow(t *testing.T) {
	n := newNode(t)
	v := localvolume.Volume{Name: "pv", Path: t.TempDir()}
	n.mount(v, "a")

	if err := n.Grow(t.Context(), v); err != nil {
		t.Error(err)
	}
}

func TestADeviceThatIsGoneDoesNotGrow(t *testing.T) {
	n := newNode(t)
	v := localvolume.Volume{Name: "pv", Path: filepath.Join(t.TempDir(), "none")}

	err := n.Grow(t.Context(), v)
	if err == nil || !strings.Contains(err.Error(), `local volume "pv"`) {
		t.Errorf("a volume that is not there: %v, want an error with its name", err)
	}
}

// A database refuses a directory that others can read. A second pod may have the volume, too.
func TestAVolumeIsGivenToTheGroupOnce(t *testing.T) {
	n := newNode(t)
	source := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(source, link); err != nil {
		t.Fatal(err)
	}
	v := localvolume.Volume{Name: "pv", Path: link, FSGroup: new(int64(1234))}

	n.mount(v, "a")
	var given unix.Stat_t
	if err := unix.Stat(n.dir("a", "pv"), &given); err != nil {
		t.Fatal(err)
	}
	if given.Gid != 1234 || given.Mode&0o070 != 0o070 {
		t.Errorf("the volume has group %d and mode %o, want 1234 and rwx for it", given.Gid, given.Mode)
	}

	data := filepath.Join(n.dir("a", "pv"), "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	n.restart()
	n.mount(v, "a")
	n.mount(v, "b")
	info, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("a directory that the pod has made has mode %v, want 0700", info.Mode())
	}
}

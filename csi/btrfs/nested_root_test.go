package btrfs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
)

const limit = 16 << 20

// limited makes a subvolume with a limit.
func limited(t *testing.T, root *os.File, name string) (*os.File, btrfs.Subvolume) {
	t.Helper()
	if _, err := btrfs.EnableQuota(root); err != nil {
		t.Fatal(err)
	}
	if err := btrfs.Create(root, name); err != nil {
		t.Fatal(err)
	}

	f, err := btrfs.Open(root, name)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { f.Close() })
	sub, err := btrfs.Inspect(f)
	if err == nil {
		err = btrfs.Limit(root, sub, limit)
	}
	if err != nil {
		t.Fatal(err)
	}

	return f, sub
}

func ioctl(t *testing.T, f *os.File, request uintptr, arg unsafe.Pointer) {
	t.Helper()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		t.Fatal(errno)
	}
}

// createIn makes a subvolume as anybody may who can write in parent, with the quota groups that he asks for.
func createIn(t *testing.T, parent *os.File, name string, groups ...uint64) *os.File {
	t.Helper()
	inherit := struct {
		flags, count, _, _        uint64
		limitFlags, most, _, _, _ uint64
		groups                    [2]uint64
	}{
		flags:      1,
		count:      uint64(len(groups)),
		limitFlags: 1,
		most:       3 * limit,
	} // a limit of its own, too

	copy(inherit.groups[:], groups)
	arg := struct {
		fd                   int64
		transid, flags, size uint64
		inherit              unsafe.Pointer
		_                    [2]uint64
		name                 [4040]byte
	}{flags: 1 << 2, size: uint64(72 + 8*len(groups)), inherit: unsafe.Pointer(&inherit)}

	copy(arg.name[:], name)

	// BTRFS_IOC_SUBVOL_CREATE_V2
	ioctl(t, parent, 1<<30|4096<<16|0x94<<8|24, unsafe.Pointer(&arg))
	return openIn(t, parent, name)
}

func openIn(t *testing.T, parent *os.File, name string) *os.File {
	t.Helper()
	f, err := btrfs.Open(parent, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// write writes up to so many bytes into a new file of dir.
func write(t *testing.T, dir *os.File, name string, most int) (int, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir.Name(), name))
	if err != nil {
		return 0, err
	}
	defer f.Close()

	var n int
	for err == nil && n < most {
		var m int
		m, err = f.Write(make([]byte, 1<<16))
		n += m
	}

	return n, err
}

func stat(t *testing.T, f *os.File) btrfs.Info {
	t.Helper()
	info, err := btrfs.Stat(f)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestLimitHoldsForSubvolumesInside(t *testing.T) {
	root := fresh(t)
	v, _ := limited(t, root, "v")
	if err := btrfs.Create(v, "x"); err != nil {
		t.Fatal(err)
	}

	x := openIn(t, v, "x")
	if n, err := write(t, x, "f", 4*limit); !errors.Is(err, unix.EDQUOT) || n > limit {
		t.Errorf("wrote %d bytes in a subvolume, the limit is %d: %v", n, limit, err)
	}
	if n, err := write(t, v, "f", limit); !errors.Is(err, unix.EDQUOT) {
		t.Errorf("wrote %d bytes more beside it: %v", n, err)
	}
}

// A process that makes a subvolume may say which groups it is charged to: none, or those of somebody else.
func TestEnforceChargesWhatWouldEscape(t *testing.T) {
	root := fresh(t)
	v, sub := limited(t, root, "v")
	other, otherSub := limited(t, root, "other")
	free := createIn(t, v, "free")
	createIn(t, free, "deeper")
	onOther := createIn(t, v, "on-other", 29<<48|otherSub.ID)
	if n, err := write(t, free, "f", 2*limit); err != nil {
		t.Fatalf("wrote %d: the kernel holds the limit itself, is Enforce still needed? %v", n, err)
	}

	for range 2 {
		if err := errors.Join(btrfs.Enforce(root, sub), btrfs.Enforce(root, otherSub)); err != nil {
			t.Fatal(err)
		}
	}

	for _, f := range []*os.File{v, free, onOther} {
		if n, err := write(t, f, "g", limit); !errors.Is(err, unix.EDQUOT) {
			t.Errorf("wrote %d bytes in %s: %v", n, f.Name(), err)
		}
	}

	if n, err := write(t, other, "f", limit/2); err != nil {
		t.Errorf("the other subvolume took %d bytes: %v", n, err)
	}
	if used, err := btrfs.Usage(stat(t, root), sub); err != nil || used < limit {
		t.Errorf("usage %d, %v", used, err)
	}
}

func TestDestroyTakesSubvolumesInside(t *testing.T) {
	root := fresh(t)
	v, sub := limited(t, root, "v")

	// More than one answer of the kernel holds.
	for i := range 300 {
		if err := btrfs.Create(v, fmt.Sprint("n", i)); err != nil {
			t.Fatal(err)
		}
	}

	free := createIn(t, v, "free")
	if err := os.Mkdir(filepath.Join(free.Name(), "dir"), 0o700); err != nil {
		t.Fatal(err)
	}

	dir, err := os.Open(filepath.Join(free.Name(), "dir"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()

	createIn(t, dir, "deep")

	// Dead already, and perhaps still charged.
	if err := os.Remove(filepath.Join(v.Name(), "n7")); err != nil {
		t.Fatal(err)
	}

	// Nothing must be refused for lack of space.
	for _, f := range []*os.File{free, v} {
		if n, err := write(t, f, "f", 4*limit); !errors.Is(err, unix.EDQUOT) {
			t.Errorf("wrote %d bytes, %v", n, err)
		}
	}

	const setFlags = 1<<30 | 8<<16 | 0x94<<8 | 26
	readOnly := uint64(1 << 1)
	for _, f := range []*os.File{free, v} {
		ioctl(t, f, setFlags, unsafe.Pointer(&readOnly))
	}

	for range 2 {
		if err := btrfs.Destroy(root, "v"); err != nil {
			t.Fatal(err)
		}
	}

	group := fmt.Sprintf("/sys/fs/btrfs/%s/qgroups/29_%d", stat(t, root).UUID, sub.ID)
	if _, err := os.Stat(group); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the group is left: %v", err)
	}
}

func TestLimitOfEarlierVersionsIsLifted(t *testing.T) {
	root := fresh(t)
	if _, err := btrfs.EnableQuota(root); err != nil {
		t.Fatal(err)
	}
	if err := btrfs.Create(root, "v"); err != nil {
		t.Fatal(err)
	}

	v := openIn(t, root, "v")

	// The group of the subvolume itself.
	old := [6]uint64{0, 1, limit}
	ioctl(t, v, 2<<30|48<<16|0x94<<8|43, unsafe.Pointer(&old))

	// Before there was a group to put it into.
	if err := btrfs.Create(v, "x"); err != nil {
		t.Fatal(err)
	}

	sub, err := btrfs.Inspect(v)
	if err != nil {
		t.Fatal(err)
	}

	for range 2 {
		if err := errors.Join(btrfs.Limit(root, sub, 2*limit), btrfs.LiftOwn(root, sub)); err != nil {
			t.Fatal(err)
		}
	}

	if n, err := write(t, v, "f", limit*3/2); err != nil {
		t.Errorf("the old limit holds at %d bytes: %v", n, err)
	}
	if n, err := write(t, openIn(t, v, "x"), "f", 2*limit); !errors.Is(err, unix.EDQUOT) || n > limit {
		t.Errorf("%d bytes more in an old subvolume inside: %v", n, err)
	}
}

package btrfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
)

// firstFree is the inode number of every subvolume's root directory (BTRFS_FIRST_FREE_OBJECTID).
const firstFree = 256

// Subvolume describes a subvolume.
type Subvolume struct {
	ID      uint64 // of its tree, and of its quota group 0/ID
	Created uint64 // number of the transaction that made it
	Changed uint64 // number of the last transaction that changed it, the one under way excluded
}

// Create makes the empty subvolume name in the open directory parent. It is on disk with the next commit, at
// the latest when a file in it is fsynced.
func Create(parent *os.File, name string) error {
	var arg volArgs
	copy(arg.name[:len(arg.name)-1], name)
	if err := ioctl(parent, iocSubvolCreate, &arg); err != nil {
		return fmt.Errorf("create subvolume %s/%s: %w", parent.Name(), name, err)
	}
	return nil
}

// Snapshot makes the subvolume name in the open directory parent with the content that the subvolume of
// source has at this moment, what was not yet synced included; not that of subvolumes in it. It is on disk
// when this returns.
func Snapshot(parent *os.File, name string, source *os.File, readOnly bool) error {
	arg := snapArgs{fd: int64(source.Fd())}
	if readOnly {
		arg.flags = snapReadOnly
	}

	copy(arg.name[:len(arg.name)-1], name)
	if err := ioctl(parent, iocSnapCreateV2, &arg); err != nil {
		return fmt.Errorf("snapshot %s as %s/%s: %w", source.Name(), parent.Name(), name, err)
	}

	return nil
}

// Open opens the root directory of subvolume name of parent. A symbolic link, a file or a plain directory is
// refused.
func Open(parent *os.File, name string) (*os.File, error) {
	fd, err := beneath.Open(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY, beneath.NoLinks)
	if err != nil {
		return nil, &os.PathError{Op: "open subvolume", Path: parent.Name() + "/" + name, Err: err}
	}

	f := os.NewFile(uintptr(fd), parent.Name()+"/"+name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != firstFree {
		f.Close()
		return nil, &os.PathError{Op: "open subvolume", Path: f.Name(), Err: errors.Join(errNoSubvolume, err)}
	}

	return f, nil
}

// Inspect describes the subvolume that f is in.
func Inspect(f *os.File) (Subvolume, error) {
	var arg subvolInfo
	if err := ioctl(f, iocGetSubvolInfo, &arg); err != nil {
		return Subvolume{}, fmt.Errorf("inspect subvolume %s: %w", f.Name(), err)
	}
	return Subvolume{ID: arg.id, Created: arg.created, Changed: arg.generation}, nil
}

// OverwriteInPlace lets files that are made below dir overwrite their blocks in place (chattr +C): for
// databases, at the price of checksums.
func OverwriteInPlace(dir *os.File) error {
	// FS_NOCOW_FL
	const noCOW = 0x00800000
	flags, err := unix.IoctlGetUint32(int(dir.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&noCOW == 0 {
		err = unix.IoctlSetPointerInt(int(dir.Fd()), unix.FS_IOC_SETFLAGS, int(flags|noCOW))
	}
	if err != nil {
		return fmt.Errorf("switch off copy-on-write of %s: %w", dir.Name(), err)
	}
	return nil
}

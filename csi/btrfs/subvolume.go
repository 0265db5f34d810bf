package btrfs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstFree is the inode number of every subvolume's root directory (BTRFS_FIRST_FREE_OBJECTID).
const firstFree = 256

// Subvolume describes one.
type Subvolume struct {
	ID      uint64 // of its tree, and of its qgroup 0/ID
	Created uint64 // number of the transaction that made it
}

// Create makes the empty subvolume name in the open directory parent. It is on disk with the next commit, at the latest when a file in it is fsynced.
func Create(parent *os.File, name string) error {
	var arg volArgs
	copy(arg.name[:len(arg.name)-1], name)
	if err := ioctl(parent, iocSubvolCreate, &arg); err != nil {
		return fmt.Errorf("create subvolume %s/%s: %w", parent.Name(), name, err)
	}
	return nil
}

// Destroy deletes the subvolume name of parent with everything in it at once; the kernel gives its space back in the background.
// What is not there is success.
func Destroy(parent *os.File, name string) error {
	sub, err := Open(parent, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := Inspect(sub)
	sub.Close()
	if err != nil {
		return err
	}
	var arg volArgs
	copy(arg.name[:len(arg.name)-1], name)
	if err := ioctl(parent, iocSnapDestroy, &arg); err != nil {
		return fmt.Errorf("delete subvolume %s/%s: %w", parent.Name(), name, err)
	}
	// Kernels before 6.12 keep the dead subvolume's quota group; where it is still in use the newer ones drop it themselves later.
	_ = ioctl(parent, iocQgroupCreate, &qgroupCreate{create: 0, id: info.ID})
	return nil
}

// Open opens the root directory of subvolume name of parent. A symbolic link, a file or a plain directory is refused.
func Open(parent *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat2(int(parent.Fd()), name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
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
	return Subvolume{ID: arg.id, Created: arg.created}, nil
}

// Limit lets the subvolume that f is in hold at most so many bytes. Writes beyond fail with EDQUOT.
func Limit(f *os.File, bytes int64) error {
	// qgroup 0 means: the one of the subvolume that the descriptor is in.
	arg := qgroupLimit{flags: limitMaxReferenced, maxReferenced: uint64(bytes)}
	if err := ioctl(f, iocQgroupLimit, &arg); err != nil {
		return fmt.Errorf("limit subvolume %s to %d bytes: %w", f.Name(), bytes, err)
	}
	return nil
}

// Usage is how many bytes are charged to a subvolume, as accounted at this moment (the quota tree on disk lags by a transaction).
func Usage(fs Info, sub Subvolume) (int64, error) {
	path := fmt.Sprintf("/sys/fs/btrfs/%s/qgroups/0_%d/referenced", fs.UUID, sub.ID)
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
}

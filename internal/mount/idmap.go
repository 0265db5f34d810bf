package mount

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// CloneMapped returns the mount at path once more, attached nowhere, with its files as those of the IDs of a
// user namespace, an open file of that (mount_setattr(2), MOUNT_ATTR_IDMAP). What is mounted below it comes
// along as it is, and so does what is mounted there later; nothing that is done to the copy is done to the
// original. The caller closes it.
func CloneMapped(path string, users int) (fd int, err error) {
	fd, err = clone(path, BindOptions{Recursive: true})
	if err != nil {
		return -1, fmt.Errorf("clone mount of %s: %w", path, err)
	}

	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users)}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr)
	if errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("%w: its file system cannot", err)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("show %s with other IDs: %w", path, err)
	}

	return fd, nil
}

// Attach attaches a mount that is attached nowhere to a path.
func Attach(fd int, path string) error {
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach a mount to %s: %w", path, err)
	}
	return nil
}

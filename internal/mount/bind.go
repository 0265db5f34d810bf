package mount

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// BindOptions say what a bind mount is like.
type BindOptions struct {
	// Recursive takes the mounts below the source along.
	Recursive bool

	// ReadOnly is about the mount of the source itself, and keeps the flags that a user namespace may have
	// locked.
	ReadOnly bool

	// Shared has what is mounted below the target mounted below the source as well, if that is shared: and
	// so what is unmounted. Otherwise that goes in the other direction only.
	Shared bool
}

// Bind mounts source on target. It is there with all its options, or not there.
func Bind(source, target string, o BindOptions) error {
	if err := bind(source, target, o); err != nil {
		return fmt.Errorf("bind %s on %s: %w", source, target, err)
	}
	return nil
}

func bind(source, target string, o BindOptions) error {
	tree, err := clone(source, o)
	if err != nil {
		return err
	}
	defer unix.Close(tree)

	if o.ReadOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fmt.Errorf("make it read-only: %w", err)
		}
	}

	return unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// clone returns the mount of a path once more, attached nowhere. The caller closes it.
func clone(path string, o BindOptions) (fd int, err error) {
	recursive := 0
	if o.Recursive {
		recursive = unix.AT_RECURSIVE
	}

	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | recursive)
	fd, err = unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil || o.Shared {
		return fd, err
	}

	// Of peers, the one whose end unmounts what is below it does that to the other as well.
	slave := unix.MountAttr{Propagation: unix.MS_SLAVE}
	if err := unix.MountSetattr(fd, "", uint(unix.AT_EMPTY_PATH|recursive), &slave); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make it a slave: %w", err)
	}

	return fd, nil
}

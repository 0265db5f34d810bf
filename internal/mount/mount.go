// Package mount makes and removes mounts by system call. Every operation may be repeated: mounting what is
// mounted and unmounting what is not are for the caller to decide with Mounted, which asks the kernel about
// one path and parses no table.
package mount

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Mounted reports whether path is the root of a mount (statx STATX_ATTR_MOUNT_ROOT, kernel >= 5.8). A path
// that does not exist is not.
func Mounted(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("statx %s: %w", path, err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Tmpfs mounts a tmpfs on target. options are those of tmpfs(5), e.g. "size=64m,mode=0755"; it is always
// nosuid,nodev, and never swapped out where the kernel can do that (6.4).
func Tmpfs(target, options string) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	err := unix.Mount("tmpfs", target, "tmpfs", flags, strings.TrimPrefix(options+",noswap", ","))
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", target, "tmpfs", flags, options)
	}
	if err != nil {
		return fmt.Errorf("mount tmpfs (%s) on %s: %w", options, target, err)
	}
	return nil
}

// KeepsTmpfsInMemory reports whether Tmpfs makes file systems that are never swapped out.
func KeepsTmpfsInMemory() bool {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(fs)
	return unix.FsconfigSetFlag(fs, "noswap") == nil
}

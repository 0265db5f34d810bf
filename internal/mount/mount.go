// Package mount makes and removes mounts by system call. Every operation may be repeated: mounting what is
// mounted and unmounting what is not are for the caller to decide with Mounted, which asks the kernel about
// one path and parses no table.
package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mountinfo"
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

// Bind mounts source on target; recursive takes the mounts below source along. readOnly needs a second call
// on Linux (MS_BIND ignores all other flags), which keeps the flags that a user namespace may have locked.
func Bind(source, target string, recursive, readOnly bool) error {
	flags := uintptr(unix.MS_BIND)
	if recursive {
		flags |= unix.MS_REC
	}
	if err := unix.Mount(source, target, "", flags, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", source, target, err)
	}
	if !readOnly {
		return nil
	}

	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_SYMLINK_NOFOLLOW, &attr); err != nil {
		return errors.Join(fmt.Errorf("make %s read-only: %w", target, err), Unmount(target))
	}

	return nil
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

// Unmount removes all mounts stacked on path, lazily when busy. What is not mounted or not there is success.
func Unmount(path string) error {
	for {
		err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil:
			continue
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			return nil
		case errors.Is(err, unix.EBUSY):
			if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount %s lazily: %w", path, err)
			}

		default:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}

// Below returns the mount points at or below dir, deepest first, from /proc/self/mountinfo. It is for
// clean-up and start-up, not for hot paths. The path to dir may lead through symbolic links. dir itself is
// not followed, nor touched: what is mounted there may not answer.
func Below(dir string) ([]string, error) {
	// The kernel lists mount points by their paths without links.
	parent, err := filepath.EvalSymlinks(filepath.Dir(filepath.Clean(dir)))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("mounts below %s: %w", dir, err)
	}

	mounts, err := mountinfo.Self()
	if err != nil {
		return nil, fmt.Errorf("mounts below %s: %w", dir, err)
	}

	// Later mounts cover earlier ones and children come after parents, so that in the reverse order each can
	// be unmounted.
	top := filepath.Join(parent, filepath.Base(dir))
	var points []string
	for _, m := range slices.Backward(mounts) {
		if m.Point == top || strings.HasPrefix(m.Point, top+"/") {
			points = append(points, m.Point)
		}
	}

	return points, nil
}

// UnmountBelow removes every mount at or below dir.
func UnmountBelow(dir string) error {
	points, err := Below(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range points {
		errs = append(errs, Unmount(p))
	}
	return errors.Join(errs...)
}

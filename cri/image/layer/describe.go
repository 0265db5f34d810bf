package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const xattrPrefix = "SCHILY.xattr." // PAX records of extended attributes

// describeFile sets owner, mode, attributes and time of an open file or directory. The order matters: a change of owner clears the setuid
// bits and capabilities, writing an attribute changes no time that is set after it.
func (t *tree) describeFile(fd int, h *tar.Header) error {
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return fmt.Errorf("owner %d:%d: %w", h.Uid, h.Gid, err)
	}
	if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil {
		return fmt.Errorf("mode %o: %w", h.Mode, err)
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok {
			continue
		}
		if overlaysOwn(name) {
			t.result.Dropped++
			continue
		}
		if err := setXattr(name, func() error { return unix.Fsetxattr(fd, name, []byte(value), 0) }); err != nil {
			return err
		}
	}
	return setTime(fd, "", h.ModTime, unix.AT_EMPTY_PATH)
}

// describe does the same for what cannot be opened: links, devices, FIFOs. Symbolic links have no mode, and their attributes are left out:
// Linux allows them trusted and security ones only.
func (t *tree) describe(parent int, base string, h *tar.Header) error {
	if err := unix.Fchownat(parent, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("owner %d:%d: %w", h.Uid, h.Gid, err)
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(parent, base, uint32(h.Mode)&0o7777, 0); err != nil {
			return fmt.Errorf("mode %o: %w", h.Mode, err)
		}
	}
	return setTime(parent, base, h.ModTime, unix.AT_SYMLINK_NOFOLLOW)
}

// overlaysOwn tells the attributes by which overlayfs is told what to hide or where to look. A layer must not write them; those that a tool
// has packed by mistake from an overlay of its own mean nothing here.
func overlaysOwn(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}

// setXattr leaves out what the file system or the kernel's security modules do not know.
func setXattr(name string, set func() error) error {
	err := set()
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && name != "security.capability" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("attribute %q: %w", shorten(name), err)
	}
	return nil
}

// timeOf is a time as file systems take it.
func timeOf(at time.Time) (unix.Timespec, error) {
	if at.IsZero() || at.Unix() < 0 {
		at = time.Unix(0, 0)
	}
	ts, err := unix.TimeToTimespec(at)
	if err != nil {
		return ts, fmt.Errorf("time %v: %w", at, err)
	}
	return ts, nil
}

func setTime(dir int, base string, at time.Time, flags int) error {
	ts, err := timeOf(at)
	if err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(dir, base, []unix.Timespec{ts, ts}, flags); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// setDirectoryTime sets the time of a directory below root.
func setDirectoryTime(root int, name string, at unix.Timespec) error {
	if name == "" {
		name = "."
	}
	return unix.UtimesNanoAt(root, name, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}

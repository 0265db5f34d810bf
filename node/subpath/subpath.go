// Package subpath opens a path inside a volume without ever leaving the volume, whatever symbolic links a
// container put there and however it changes them meanwhile: the kernel resolves the path below the volume's
// root (openat2 RESOLVE_BENEATH), and what was opened, not its name, is bind-mounted for the container.
package subpath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mount"
)

// beneath is how every component is resolved.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS

// Check refuses subpaths that are absolute or climb.
func Check(sub string) error {
	if filepath.IsAbs(sub) {
		return fmt.Errorf("subPath %q must not be an absolute path", sub)
	}
	for part := range strings.SplitSeq(sub, "/") {
		if part == ".." {
			return fmt.Errorf("subPath %q must not contain '..'", sub)
		}
	}
	return nil
}

// Bind mounts sub of the volume on target (a file or directory is made there). A missing sub is made, with
// the mode of the volume's root, unless readOnly is set. What target already holds is kept when it is the
// same file, replaced otherwise.
func Bind(volume, sub, target string, readOnly bool) error {
	if err := Check(sub); err != nil {
		return err
	}

	fd, err := open(volume, sub, !readOnly)
	if err != nil {
		return fmt.Errorf("subPath %q of volume %s: %w", sub, volume, err)
	}
	defer unix.Close(fd)

	var want, have unix.Stat_t
	if err := unix.Fstat(fd, &want); err != nil {
		return fmt.Errorf("subPath %q of volume %s: %w", sub, volume, err)
	}

	if mounted, err := mount.Mounted(target); err != nil {
		return err
	} else if mounted {
		if unix.Stat(target, &have) == nil && have.Dev == want.Dev && have.Ino == want.Ino {
			return nil
		}
		if err := mount.Unmount(target); err != nil {
			return err
		}
	}

	if err := place(target, want.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}

	return mount.Bind(fmt.Sprintf("/proc/self/fd/%d", fd), target, true, false)
}

// open returns an O_PATH descriptor of sub.
func open(volume, sub string, create bool) (int, error) {
	root, err := unix.Open(volume, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)

	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: beneath}
	fd, err := openRetry(root, sub, how)
	if !errors.Is(err, unix.ENOENT) || !create {
		return fd, explain(err)
	}
	if err := makeAll(root, sub); err != nil {
		return -1, explain(err)
	}

	fd, err = openRetry(root, sub, how)
	return fd, explain(err)
}

// openRetry repeats what the kernel asks to repeat: EAGAIN says that something was renamed during the
// resolution.
func openRetry(root int, sub string, how unix.OpenHow) (fd int, err error) {
	for range 128 {
		fd, err = unix.Openat2(root, sub, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return fd, err
}

func explain(err error) error {
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("it leads out of the volume: %w", err)
	}
	return err
}

// makeAll makes the missing directories one by one, each below what has been opened.
func makeAll(root int, sub string) error {
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return err
	}

	at := ""
	for part := range strings.SplitSeq(filepath.Clean(sub), "/") {
		parent, err := openRetry(
			root,
			filepath.Join(".", at),
			unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath},
		)
		if err != nil {
			return err
		}

		err = makeOne(parent, part, st.Mode&0o7777)
		unix.Close(parent)
		if err != nil {
			return fmt.Errorf("make %s: %w", filepath.Join(at, part), err)
		}

		at = filepath.Join(at, part)
	}

	return nil
}

func makeOne(parent int, name string, mode uint32) error {
	err := unix.Mkdirat(parent, name, mode&0o777)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return err
	}

	// mkdir(2) obeys the umask, the volume's mode shall not.
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)

	return unix.Fchmod(fd, mode)
}

// place makes the mount point: of the kind of what will be mounted.
func place(target string, dir bool) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return fmt.Errorf("mount point %s: %w", target, err)
	}

	info, err := os.Lstat(target)
	if err == nil && info.IsDir() != dir {
		if err = os.Remove(target); err == nil {
			err = fs.ErrNotExist
		}
	}

	switch {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("mount point %s: %w", target, err)
	case dir:
		err = os.Mkdir(target, 0o750)
	default:
		err = os.WriteFile(target, nil, 0o640)
	}

	if err != nil {
		return fmt.Errorf("mount point %s: %w", target, err)
	}

	return nil
}

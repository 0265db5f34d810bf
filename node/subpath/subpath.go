// Package subpath mounts a path inside a volume (volumeMounts[].subPath) without ever leaving the volume,
// whatever symbolic links a container puts there and however it changes them meanwhile: the kernel resolves
// the path below the volume's root, and what was opened, not its name, is bind-mounted for the container.
package subpath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
	"github.com/trivet-node/trivet/internal/mount"
)

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

// Options say what a bind mount is for.
type Options struct {
	// ReadOnly is that of the volume: nothing is made in it.
	ReadOnly bool

	// Shared is set if what a container mounts there is to be mounted in the volume as well.
	Shared bool
}

// Bind mounts sub of the volume on target; a file or directory is made there. A missing sub is made, with the
// mode of the volume's root, unless the volume is read-only. What is mounted on target already is kept if it
// is the same file, and replaced otherwise.
func Bind(volume, sub, target string, o Options) error {
	if err := Check(sub); err != nil {
		return err
	}

	fd, err := open(volume, sub, !o.ReadOnly)
	if err != nil {
		return fmt.Errorf("subPath %q of volume %s: %w", sub, volume, err)
	}
	defer unix.Close(fd)

	var want unix.Stat_t
	if err := unix.Fstat(fd, &want); err != nil {
		return fmt.Errorf("subPath %q of volume %s: %w", sub, volume, err)
	}
	if done, err := unmountOther(target, &want); done || err != nil {
		return err
	}
	if err := makePoint(target, want.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}

	return mount.Bind(beneath.Path(fd), target, mount.BindOptions{Recursive: true, Shared: o.Shared})
}

// unmountOther unmounts what is on target, unless it is the wanted file: then it reports that all is done.
func unmountOther(target string, want *unix.Stat_t) (done bool, err error) {
	mounted, err := mount.Mounted(target)
	if err != nil || !mounted {
		return false, err
	}

	var have unix.Stat_t
	if unix.Stat(target, &have) == nil && have.Dev == want.Dev && have.Ino == want.Ino {
		return true, nil
	}

	return false, mount.Unmount(target)
}

// open returns an O_PATH descriptor of sub. With create set a missing one is made.
func open(volume, sub string, create bool) (int, error) {
	root, err := unix.Open(volume, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)

	fd, err := beneath.Open(root, sub, unix.O_PATH, beneath.Links)
	if errors.Is(err, unix.ENOENT) && create {
		if err = makeAll(root, sub); err == nil {
			fd, err = beneath.Open(root, sub, unix.O_PATH, beneath.Links)
		}
	}

	if beneath.Outside(err) {
		err = fmt.Errorf("it leads out of the volume: %w", err)
	}

	return fd, err
}

// makeAll makes the missing directories one by one, each below what has been opened.
func makeAll(root int, sub string) error {
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return err
	}

	at := "."
	for part := range strings.SplitSeq(filepath.Clean(sub), "/") {
		parent, err := beneath.Open(root, at, unix.O_PATH|unix.O_DIRECTORY, beneath.Links)
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

// makeOne makes a directory with the mode, whatever the umask is. One that is there stays as it is.
func makeOne(parent int, name string, mode uint32) error {
	err := unix.Mkdirat(parent, name, mode&0o777)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return err
	}

	// Mkdir(2) obeys the umask.
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)

	return unix.Fchmod(fd, mode)
}

// makePoint makes the mount point: a directory, or an empty file. One of the other kind is replaced.
func makePoint(target string, dir bool) error {
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

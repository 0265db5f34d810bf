// Package mount puts file systems on the paths that a container orchestrator names. The paths are input from
// outside: they are resolved beneath one directory (kubelet's) with no symbolic link followed, and every
// mount, check and removal works on descriptors, so that nobody can swap a component in between.
package mount

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
)

// ErrOutside is a path that is not beneath the root, or passes a symbolic link.
var ErrOutside = errors.New("path is outside of the directory for volumes")

// ErrBusy is a mount that somebody still uses.
var ErrBusy = errors.New("mount is in use")

// Root is the directory beneath which mounts may be made. It is held open.
type Root struct {
	dir  *os.File
	path string
}

// OpenRoot opens dir, following symbolic links this once.
func OpenRoot(dir string) (*Root, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Root{dir: f, path: filepath.Clean(dir)}, nil
}

// Close frees the root.
func (r *Root) Close() error { return r.dir.Close() }

// Place is a name in an open directory: what a mount is put on. It is closed after use.
type Place struct {
	parent *os.File
	name   string
	path   string
}

// Place opens the directory that holds target. With create set, missing directories on the way are made
// (0750). Without it the error is os.ErrNotExist when one is missing.
func (r *Root) Place(target string, create bool) (*Place, error) {
	clean := path.Clean(target)
	rel, ok := strings.CutPrefix(clean, strings.TrimSuffix(r.path, "/")+"/")
	if !ok || rel == "" || clean != strings.TrimSuffix(target, "/") || strings.Contains(target, "\x00") {
		return nil, fmt.Errorf("%w: %q is not beneath %s", ErrOutside, target, r.path)
	}

	dir, name := path.Split(rel)
	parent, err := r.open(path.Clean(dir))
	if errors.Is(err, os.ErrNotExist) && create {
		parent, err = r.create(path.Clean(dir))
	}
	if err != nil {
		return nil, err
	}

	return &Place{parent: parent, name: name, path: clean}, nil
}

func (r *Root) open(dir string) (*os.File, error) { return openBeneath(r.dir, dir, r.path) }

func openBeneath(at *os.File, dir, shown string) (*os.File, error) {
	fd, err := beneath.Open(int(at.Fd()), dir, unix.O_PATH|unix.O_DIRECTORY, beneath.NoLinks)
	shown = path.Join(shown, dir)
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), shown), nil
	case beneath.Outside(err), errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("%w: %s: %w", ErrOutside, shown, err)
	}
	return nil, &os.PathError{Op: "open", Path: shown, Err: err}
}

// create makes the directories of dir one by one, each opened from the one before.
func (r *Root) create(dir string) (*os.File, error) {
	at, err := openBeneath(r.dir, ".", r.path)
	if err != nil {
		return nil, err
	}

	for part := range strings.SplitSeq(dir, "/") {
		if err := unix.Mkdirat(int(at.Fd()), part, 0o750); err != nil && !errors.Is(err, unix.EEXIST) {
			at.Close()
			return nil, &os.PathError{Op: "mkdir", Path: path.Join(at.Name(), part), Err: err}
		}

		next, err := openBeneath(at, part, at.Name())
		at.Close()
		if err != nil {
			return nil, err
		}

		at = next
	}

	return at, nil
}

// Close frees the place; what is mounted there stays.
func (p *Place) Close() error { return p.parent.Close() }

// String is the place's path.
func (p *Place) String() string { return p.path }

// MakeDir makes the directory to mount on, if it is not there.
func (p *Place) MakeDir() error {
	if err := unix.Mkdirat(int(p.parent.Fd()), p.name, 0o750); err != nil && !errors.Is(err, unix.EEXIST) {
		return &os.PathError{Op: "mkdir", Path: p.path, Err: err}
	}
	return nil
}

// MakeFile makes the empty file that a device is mounted on, if it is not there.
func (p *Place) MakeFile() error {
	fd, err := unix.Openat(
		int(p.parent.Fd()),
		p.name,
		unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW,
		0o600,
	)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "create", Path: p.path, Err: err}
	}

	return unix.Close(fd)
}

// State is what the kernel tells about a place.
type State struct {
	Exists, Mounted, ReadOnly bool
	Device                    uint64 // of the file system seen there
	Inode                     uint64
	Special                   uint64 // device number, if a device node is seen there
}

// State asks the kernel about this one path; no table of mounts is read.
func (p *Place) State() (State, error) {
	var st unix.Statx_t
	err := unix.Statx(
		int(p.parent.Fd()),
		p.name,
		unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT,
		unix.STATX_BASIC_STATS,
		&st,
	)
	if errors.Is(err, unix.ENOENT) {
		return State{}, nil
	}
	if err != nil {
		return State{}, &os.PathError{Op: "statx", Path: p.path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return State{}, fmt.Errorf("%w: %s is a symbolic link", ErrOutside, p.path)
	}

	s := State{
		Exists:  true,
		Mounted: st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0,
		Inode:   st.Ino,
		Device:  unix.Mkdev(st.Dev_major, st.Dev_minor),
		Special: unix.Mkdev(st.Rdev_major, st.Rdev_minor),
	}
	if s.Mounted {
		var fs unix.Statfs_t
		if err := unix.Statfs(p.kernelPath(), &fs); err != nil {
			return State{}, &os.PathError{Op: "statfs", Path: p.path, Err: err}
		}

		s.ReadOnly = fs.Flags&unix.ST_RDONLY != 0
	}

	return s, nil
}

// Open opens what is mounted there, a directory.
func (p *Place) Open() (*os.File, error) {
	fd, err := unix.Openat(
		int(p.parent.Fd()),
		p.name,
		unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC,
		0,
	)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: p.path, Err: err}
	}
	return os.NewFile(uintptr(fd), p.path), nil
}

// linger is how long a mount may be in use for no reason: a program that this process is about to start holds
// copies of all descriptors, also of those beneath the mount, until it executes.
const linger = time.Second

// Clear unmounts whatever is stacked on the place. What is not mounted is success.
func (p *Place) Clear() error {
	for end := time.Now().Add(linger); ; {
		s, err := p.State()
		if err != nil || !s.Mounted {
			return err
		}

		err = unix.Unmount(p.kernelPath(), unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) && time.Now().Before(end) {
			time.Sleep(5 * time.Millisecond)
			continue
		}

		if errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("unmount %s: %w", p.path, ErrBusy)
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", p.path, err)
		}
	}
}

// Remove clears the place and deletes the empty directory or file that was mounted on. Content is never
// deleted.
func (p *Place) Remove() error {
	if err := p.Clear(); err != nil {
		return err
	}
	err := unix.Unlinkat(int(p.parent.Fd()), p.name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOTDIR) {
		err = p.removeEmptyFile()
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "remove", Path: p.path, Err: err}
	}
	return nil
}

func (p *Place) removeEmptyFile() error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(p.parent.Fd()), p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return unix.ENOTEMPTY
	}
	return unix.Unlinkat(int(p.parent.Fd()), p.name, 0)
}

// kernelPath names the place for system calls that take no directory descriptor.
func (p *Place) kernelPath() string {
	return path.Join(beneath.Path(int(p.parent.Fd())), p.name)
}

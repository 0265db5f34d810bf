// Package target puts file systems on the paths that a container orchestrator names. The paths are input from
// outside: they are resolved beneath one directory (kubelet's) with no symbolic link followed, and every
// mount, check and removal works on descriptors, so that nobody can swap a component in between.
package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
	"github.com/trivet-node/trivet/internal/retry"
)

var (
	// ErrOutside is a path that is not beneath the root, or leads through a symbolic link.
	ErrOutside = errors.New("path is outside of the directory for volumes")

	// ErrBusy is a mount that somebody still uses.
	ErrBusy = errors.New("mount is in use")
)

// Point is what a mount is put on: a name in an open directory. There may be nothing of that name yet. It is
// closed after use.
type Point struct {
	parent *os.File
	name   string
	path   string
}

// Close frees the point; what is mounted there stays.
func (p *Point) Close() error { return p.parent.Close() }

// String returns the path of the point.
func (p *Point) String() string { return p.path }

// MakeDir makes the directory to mount on, if it is not there.
func (p *Point) MakeDir() error {
	err := unix.Mkdirat(int(p.parent.Fd()), p.name, 0o750)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return &os.PathError{Op: "mkdir", Path: p.path, Err: err}
	}
	return nil
}

// MakeFile makes the empty file that a device is mounted on, if it is not there.
func (p *Point) MakeFile() error {
	const flags = unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW
	fd, err := unix.Openat(int(p.parent.Fd()), p.name, flags, 0o600)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "create", Path: p.path, Err: err}
	}
	return unix.Close(fd)
}

// State is what the kernel says about a point.
type State struct {
	Mounted  bool
	ReadOnly bool   // of what is mounted
	Device   uint64 // number of the file system that is seen there
	Inode    uint64
	Special  uint64 // device number, if a device node is seen there
}

// State asks the kernel about this one point; no table of mounts is read. The zero State is that of a point
// where nothing is.
func (p *Point) State() (State, error) {
	const flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	var st unix.Statx_t
	err := unix.Statx(int(p.parent.Fd()), p.name, flags, unix.STATX_BASIC_STATS, &st)
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
		Mounted: st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0,
		Device:  unix.Mkdev(st.Dev_major, st.Dev_minor),
		Inode:   st.Ino,
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
func (p *Point) Open() (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(int(p.parent.Fd()), p.name, flags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: p.path, Err: err}
	}
	return os.NewFile(uintptr(fd), p.path), nil
}

// A mount may be busy for a moment without being in use: a program that this process is about to start holds
// copies of all descriptors, those beneath the mount included, until it executes.
const (
	busyTimeout = time.Second
	busyPoll    = 5 * time.Millisecond
)

// Clear unmounts all that is stacked on the point. Where nothing is mounted is success.
func (p *Point) Clear() error {
	ctx, cancel := context.WithTimeout(context.Background(), busyTimeout)
	defer cancel()

	for {
		state, err := p.State()
		if err != nil || !state.Mounted {
			return err
		}

		err = unix.Unmount(p.kernelPath(), unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil:
		case !errors.Is(err, unix.EBUSY):
			return fmt.Errorf("unmount %s: %w", p.path, err)
		case retry.Sleep(ctx, busyPoll) != nil:
			return fmt.Errorf("unmount %s: %w", p.path, ErrBusy)
		}
	}
}

// Remove clears the point and deletes the empty directory or file that was mounted on. Content is never
// deleted.
func (p *Point) Remove() error {
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

func (p *Point) removeEmptyFile() error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(p.parent.Fd()), p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return unix.ENOTEMPTY
	}
	return unix.Unlinkat(int(p.parent.Fd()), p.name, 0)
}

// kernelPath names the point for system calls that take no directory descriptor.
func (p *Point) kernelPath() string { return path.Join(beneath.Path(int(p.parent.Fd())), p.name) }

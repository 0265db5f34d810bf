// Package removal deletes directory trees that are not trusted. Such a tree may be tens of thousands of
// directories deep or hold millions of names. So the number of open descriptors and the memory do not grow
// with it, and no error is longer than a few path names. What was made immutable or append-only is deleted as
// everything else is. Nothing below a mount point is touched, and no symbolic link is followed.
package removal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrMounted: a mount point is in the way, which stays.
var ErrMounted = errors.New("something is still mounted there")

// Tree deletes path and, if it is a directory, everything below it. A mount point below it is an error
// (ErrMounted) and stays, and so does what cannot be deleted; everything else is deleted. What is not there
// is a success, so that Tree may be repeated.
func Tree(path string) error {
	path = filepath.Clean(path)
	parent, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	defer unix.Close(parent)

	if err := At(parent, filepath.Base(path)); err != nil {
		return fmt.Errorf("remove in %s: %w", filepath.Dir(path), err)
	}

	return nil
}

// At is Tree for the entry name of the open directory parent.
func At(parent int, name string) error {
	if name == "" || name == "." || name == ".." || name == "/" {
		return fmt.Errorf("%q: not the name of a directory entry", name)
	}
	own, err := unix.FcntlInt(uintptr(parent), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}

	w := walker{levels: []*level{{fd: own, names: []string{name}, whole: true}}}
	defer w.close()
	return w.run(context.Background())
}

// Inside deletes what is below the directory path, which stays, as Tree does. When ctx ends before, so does
// it, with an error: it goes on where it was when it is called again.
func Inside(ctx context.Context, path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove what is in %s: %w", path, err)
	}

	w := walker{levels: []*level{{fd: fd, dir: os.NewFile(uintptr(fd), path)}}}
	defer w.close()
	if err := w.run(ctx); err != nil {
		return fmt.Errorf("remove in %s: %w", path, err)
	}
	return nil
}

// removeOne deletes a file or an empty directory. It returns full if it is a directory that is not empty.
func removeOne(dir int, name string) (full bool, err error) {
	err = unix.Unlinkat(dir, name, 0)
	// EPERM is POSIX's error for a directory, but may mean as well that this is not allowed.
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
		if as := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); !errors.Is(as, unix.ENOTDIR) {
			err = as
		}
	}

	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return false, nil
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		return true, nil
	case errors.Is(err, unix.EBUSY):
		return false, ErrMounted
	}

	return false, err
}

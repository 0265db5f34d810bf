// Package removal deletes directory trees that strangers made. Such a tree may be tens of thousands of
// directories deep or hold millions of names, so descriptors do not grow with it, memory only by some words
// for each directory on the way down, and no error is longer than a few path names. Nothing behind a mount
// point is touched, and no symbolic link is followed.
package removal

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrMounted says that a mount point, which stays, is in the way.
var ErrMounted = errors.New("something is still mounted there")

// Tree deletes path and, if it is a directory, all below it. A mount point found below it is an error
// (ErrMounted) and stays; so does what cannot be deleted, while the rest goes. What is not there is success.
// It may be repeated.
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
	return w.run()
}

// removeOne deletes a file or an empty directory. full says that it is a directory with something in it.
func removeOne(dir int, name string) (full bool, err error) {
	err = unix.Unlinkat(dir, name, 0)
	// EPERM is what POSIX has for a directory; it may also mean that this is not allowed.
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

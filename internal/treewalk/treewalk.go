// Package treewalk goes through directory trees that are not trusted. Such a tree may be millions of
// directories deep or hold millions of names, and change meanwhile. A walk holds few descriptors, and of each
// directory on the way down a few words; there is a depth that it does not go beyond. What to look at and
// where to go down is the caller's: a walk follows no symbolic link and opens nothing but directories.
package treewalk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
)

// window is the number of directories above the present one that are kept open.
const window = 32

// deepest is how many directories a walk may be below the root: more than a path can name, and so few that
// what is kept of them is at most some MiB, with the longest names.
const deepest = 1 << 12

var (
	// ErrMoved says that a directory was moved while the walk was below it.
	ErrMoved = errors.New("the directory was moved meanwhile")

	// ErrDeep says that a directory is deeper than walks go.
	ErrDeep = fmt.Errorf("it is more than %d directories down", deepest)
)

// Walk is one way through a tree. The zero value is ready for Enter of the tree's root. It is not safe for
// concurrent use.
type Walk struct {
	levels []*level
}

// level is one directory on the way down to where the walk is.
type level struct {
	name string
	dev  uint64
	ino  uint64

	// fd is -1 while the walk is far below: then the directory is opened again by way of "..".
	fd int

	// names are the entries of the present batch, next is the index of the one to return, and offset is where
	// the batch begins in the directory.
	names  []string
	next   int
	offset int64
}

// Enter makes a directory the present one: Next returns its entries, and then goes on with those of the
// directory above. fd stands for it, is still the caller's and may be opened with O_PATH; st is what fstat(2)
// says of it. One that is too deep is not entered, with ErrDeep.
func (w *Walk) Enter(fd int, name string, st *unix.Stat_t) error {
	if w.Depth() >= deepest {
		return ErrDeep
	}

	own, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}

	w.levels = append(w.levels, &level{
		name: name,
		dev:  st.Dev,
		ino:  st.Ino,
		fd:   own,
	})

	// The root is never closed: from there the walk goes on when another way back is lost.
	if far := len(w.levels) - 1 - window; far > 0 {
		w.levels[far].close()
	}

	return nil
}

// Next returns an entry of the present directory, which dir is open on until the next call. At the end of the
// tree dir is -1.
//
// With an error the rest of a directory is lost, and with ErrMoved that of all directories on the way, except
// for the root. The next call goes on with what is left.
func (w *Walk) Next() (dir int, name string, err error) {
	for len(w.levels) > 0 {
		here := w.levels[len(w.levels)-1]
		name, err := here.read()
		if err == nil && name != "" {
			return here.fd, name, nil
		}

		if err != nil {
			err = fmt.Errorf("read directory: %w", w.within(err))
		}
		if up := w.leave(); up != nil {
			err = up
		}

		if err != nil {
			return -1, "", err
		}
	}

	return -1, "", nil
}

// Depth is how many directories the present one is below the root, -1 at the end.
func (w *Walk) Depth() int { return len(w.levels) - 1 }

// Pause closes all descriptors but two. The walk goes on as if nothing had happened.
func (w *Walk) Pause() {
	for i, l := range w.levels {
		if i > 0 && i < len(w.levels)-1 {
			l.close()
		}
	}
}

// Close frees what the walk holds. It is at its end then.
func (w *Walk) Close() {
	for _, l := range w.levels {
		l.close()
	}
	w.levels = nil
}

// within adds to an error where in the tree it was.
func (w *Walk) within(err error) error {
	here := w.levels[len(w.levels)-1]
	return fmt.Errorf("%s, %d directories down: %w", here.name, w.Depth(), err)
}

// leave goes back to the directory above, or to the root if the way there is lost.
func (w *Walk) leave() error {
	left := w.levels[len(w.levels)-1]
	defer left.close()
	w.levels = w.levels[:len(w.levels)-1]
	if len(w.levels) == 0 || w.levels[len(w.levels)-1].fd >= 0 {
		return nil
	}

	err := w.levels[len(w.levels)-1].reopen(left.fd)
	if err == nil {
		return nil
	}

	err = w.within(err)
	for _, l := range w.levels[1:] {
		l.close()
	}

	w.levels = w.levels[:1]
	return err
}

// read returns the next entry's name, empty at the end.
func (l *level) read() (string, error) {
	for l.next >= len(l.names) {
		at, err := unix.Seek(l.fd, 0, unix.SEEK_CUR)
		if err != nil {
			return "", err
		}

		buffer := make([]byte, 8<<10)
		n, err := unix.ReadDirent(l.fd, buffer)
		if err != nil {
			return "", err
		}
		if n == 0 {
			return "", nil
		}

		_, _, names := unix.ParseDirent(buffer[:n], -1, nil)
		l.offset = at
		l.names = names
		l.next = 0
	}

	l.next++
	return l.names[l.next-1], nil
}

// reopen opens the directory again, as the parent of an open one, and goes on where it was. It must be the
// one that it was: a directory that was moved meanwhile has another parent.
func (l *level) reopen(below int) error {
	fd, err := beneath.Open(below, "..", unix.O_RDONLY|unix.O_DIRECTORY, beneath.OneFileSystem)
	if err != nil {
		return err
	}

	l.fd = fd
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Dev != l.dev || st.Ino != l.ino {
		return ErrMoved
	}

	passed := l.next
	if _, err := unix.Seek(fd, l.offset, unix.SEEK_SET); err != nil {
		return err
	}

	// Read the batch again, up to where the walk was.
	l.next, l.names = 0, nil
	for l.next < passed {
		if name, err := l.read(); name == "" || err != nil {
			return err
		}
	}

	return nil
}

// close frees what the level holds except what reopen needs.
func (l *level) close() {
	if l.fd >= 0 {
		unix.Close(l.fd)
	}
	l.fd, l.names = -1, nil
}

package fsgroup

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
)

// window is the number of directories above the present one that are kept open. A container may have made
// tens of thousands, one in the other.
const window = 32

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

// below changes all that is below the directory fd (O_PATH). It holds few descriptors and, of each directory
// on the way, a few words.
func (t tree) below(ctx context.Context, fd int, st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}

	w := walk{tree: t}
	defer w.close()

	if err := w.enter(fd, ".", st); err != nil {
		return err
	}

	for len(w.levels) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}

		here := w.levels[len(w.levels)-1]
		name, err := here.read()
		switch {
		case err != nil:
		case name == "":
			err = w.leave()
		default:
			err = w.child(here.fd, name)
		}

		if err != nil {
			return fmt.Errorf("%d directories down, in %s: %s: %w", len(w.levels)-1, here.name, name, err)
		}
	}

	return nil
}

// walk goes through a tree without recursion.
type walk struct {
	tree
	levels []*level
}

// child changes an entry of a directory and, if it is a directory, makes it the present one.
func (w *walk) child(dir int, name string) error {
	fd, err := beneath.Open(dir, name, unix.O_PATH|unix.O_NOFOLLOW, beneath.OneFileSystem)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EXDEV) {
		// Gone meanwhile, or another file system, which is not the volume's.
		return nil
	}

	if err != nil {
		return err
	}
	defer unix.Close(fd)

	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := w.apply(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}

	return w.enter(fd, name, &st)
}

// enter opens a directory and closes the one that is too far above by now.
func (w *walk) enter(fd int, name string, st *unix.Stat_t) error {
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
	if far := len(w.levels) - 1 - window; far >= 0 {
		w.levels[far].close()
	}

	return nil
}

// leave goes back to the directory above.
func (w *walk) leave() error {
	left := w.levels[len(w.levels)-1]
	defer left.close()
	w.levels = w.levels[:len(w.levels)-1]
	if len(w.levels) == 0 || w.levels[len(w.levels)-1].fd >= 0 {
		return nil
	}
	return w.levels[len(w.levels)-1].reopen(left.fd)
}

// close frees all levels.
func (w *walk) close() {
	for _, l := range w.levels {
		l.close()
	}
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
		return errors.New("the directory was moved meanwhile")
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

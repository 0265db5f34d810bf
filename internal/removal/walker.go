package removal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of a walk, whatever the tree is like.
const (
	window      = 32      // directories above the present one that are kept open, with the names read of them
	batch       = 128     // names read at a time
	maxFailures = 8       // what cannot be deleted, before the walk gives up
	maxReturns  = 64      // times that a directory is found to be not empty after all: somebody writes there
	maxPathText = 1 << 10 // bytes of a path in an error
)

// level is one directory on the way from the tree's parent down to where the walk is.
type level struct {
	name    string // in the directory above
	dev     uint64
	ino     uint64
	fd      int             // -1 while the walk is far below: then it is opened again by way of ".."
	dir     *os.File        // fd, to read names
	names   []string        // read and not yet handled
	whole   bool            // names is all that is to be handled, the directory is not read
	kept    map[string]bool // what cannot be deleted
	returns int
}

// walker deletes depth first, without recursion.
type walker struct {
	levels   []*level // the first is the directory that holds the tree
	failures []error
}

func (w *walker) run() error {
	for len(w.failures) < maxFailures {
		here := w.levels[len(w.levels)-1]
		name, ok := w.next(here)
		switch {
		case ok:
			w.enter(here, name)
		case len(w.levels) == 1:
			return errors.Join(w.failures...)
		default:
			if err := w.leave(); err != nil {
				return errors.Join(append(w.failures, err)...)
			}
		}
	}

	return errors.Join(append(w.failures, errors.New("gave up after so many failures"))...)
}

// next deletes the entries of a directory up to the first that must be entered before, and returns that one.
func (w *walker) next(l *level) (string, bool) {
	for {
		for len(l.names) > 0 {
			name := l.names[0]
			l.names = l.names[1:]
			if l.kept[name] {
				continue
			}

			full, err := removeOne(l.fd, name)
			if full {
				return name, true
			}
			if err != nil {
				w.fail(l, name, err)
			}
		}

		if l.whole {
			return "", false
		}

		var err error
		l.names, err = l.dir.Readdirnames(batch)
		if errors.Is(err, io.EOF) {
			return "", false
		}

		if err != nil {
			w.fail(l, ".", err)
			return "", false
		}
	}
}

// enter opens a directory and closes the one that is too far above by now.
func (w *walker) enter(above *level, name string) {
	fd, err := unix.Openat2(above.fd, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
	})

	switch {
	case errors.Is(err, unix.ENOENT):
		return
	case errors.Is(err, unix.EXDEV):
		w.fail(above, name, ErrMounted)
		return
	case err != nil:
		w.fail(above, name, err)
		return
	}

	below := &level{name: name, fd: fd, dir: os.NewFile(uintptr(fd), name)}
	if below.dev, below.ino, err = identity(fd); err != nil {
		below.close()
		w.fail(above, name, err)
		return
	}

	w.levels = append(w.levels, below)
	// The first is never closed: nothing leads back to it safely.
	if far := len(w.levels) - 1 - window; far > 0 {
		w.levels[far].close()
	}
}

// leave goes back to the directory above and deletes the one that was left, unless something in it stays.
func (w *walker) leave() error {
	left, above := w.levels[len(w.levels)-1], w.levels[len(w.levels)-2]
	defer left.close()

	if above.fd < 0 {
		if err := above.reopen(left.fd); err != nil {
			return fmt.Errorf("%s: %w", w.path(".."), err)
		}
	}

	w.levels = w.levels[:len(w.levels)-1]
	if len(left.kept) > 0 {
		above.keep(left.name)
		return nil
	}

	full, err := removeOne(above.fd, left.name)
	if full {
		// A name that was not read, or was made meanwhile: once more.
		above.names = append(above.names, left.name)
		if above.returns++; above.returns > maxReturns {
			err = unix.ENOTEMPTY
		}
	}

	if err != nil {
		w.fail(above, left.name, err)
	}

	return nil
}

func (w *walker) fail(l *level, name string, err error) {
	l.keep(name)
	w.failures = append(w.failures, fmt.Errorf("%s: %w", w.path(name), err))
}

// path names an entry of the present directory. Of a long path, it has the beginning and the end.
func (w *walker) path(name string) string {
	var parts []string
	length := len(name)
	for _, l := range w.levels[1:] {
		parts = append(parts, l.name)
		length += len(l.name) + 1
	}
	if length > maxPathText {
		between := fmt.Sprintf("(%d directories)", len(parts)-2)
		parts = []string{parts[0], between, parts[len(parts)-1]}
	}
	return strings.Join(append(parts, name), "/")
}

func (w *walker) close() {
	for _, l := range w.levels {
		l.close()
	}
}

func (l *level) keep(name string) {
	if l.kept == nil {
		l.kept = map[string]bool{}
	}
	l.kept[name] = true
}

// reopen opens the directory again, as the parent of an open one. It must be the one that it was: a directory
// that was moved meanwhile has another parent.
func (l *level) reopen(below int) error {
	fd, err := unix.Openat2(below, "..", &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return err
	}

	dev, ino, err := identity(fd)
	if err == nil && (dev != l.dev || ino != l.ino) {
		err = errors.New("the directory was moved during its removal")
	}

	if err != nil {
		unix.Close(fd)
		return err
	}

	l.fd, l.dir = fd, os.NewFile(uintptr(fd), l.name)
	return nil
}

// close frees what the level holds but what is needed to come back.
func (l *level) close() {
	switch {
	case l.fd < 0:
	case l.dir != nil:
		l.dir.Close()
	default:
		unix.Close(l.fd)
	}
	l.fd, l.dir, l.names = -1, nil, nil
}

func identity(fd int) (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, 0, err
	}
	return st.Dev, st.Ino, nil
}

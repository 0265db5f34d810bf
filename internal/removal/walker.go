package removal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
)

const (
	// window is how many directories above the present one are kept open, with the names that were read of
	// them.
	window = 32
	// batch is how many names are read at a time.
	batch = 128
	// maxFailures is how many entries that cannot be deleted end the walk.
	maxFailures = 8
	// maxReturns is how often a directory may turn out not to be empty after all, because somebody writes
	// there.
	maxReturns = 64
	// maxDepth is how many directories down the walk goes: what is deeper is moved up to where it began, so
	// that memory is bounded, whatever the tree is.
	maxDepth = 4096
	// maxPathText is the longest path in an error, in bytes.
	maxPathText = 1 << 10
)

// level is one directory on the way from the tree's parent down to where the walk is.
type level struct {
	name string // in the directory above
	dev  uint64
	ino  uint64

	// fd is -1 while the walk is far below. Then the directory is opened again as the parent of the one
	// below.
	fd int
	// dir is fd as a file, to read names.
	dir *os.File
	// names are those that were read and not handled yet.
	names []string
	// whole says that only names are to be handled: the directory is not read.
	whole bool
	// kept are the names that cannot be deleted.
	kept map[string]bool
	// returns counts how often the directory was entered again.
	returns int
	// again says that something was moved here: at its end the directory is read once more.
	again bool
}

// walker deletes depth first, without recursion.
type walker struct {
	levels   []*level // the first is the directory that holds the tree
	failures []error
	moved    int // how many directories were moved up
}

// run deletes until nothing is left, too much cannot be deleted, or ctx ends.
func (w *walker) run(ctx context.Context) error {
	for len(w.failures) < maxFailures {
		here := w.levels[len(w.levels)-1]
		name, ok := w.next(ctx, here)
		switch {
		case ctx.Err() != nil:
			return errors.Join(append(w.failures, context.Cause(ctx))...)
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

// next deletes the entries of a directory until one must be entered, and returns that one. It returns false
// when no entry is left, or ctx ends.
func (w *walker) next(ctx context.Context, l *level) (string, bool) {
	for ctx.Err() == nil {
		if name, found := w.removeNames(l); found {
			return name, true
		}
		if l.whole {
			return "", false
		}

		var err error
		l.names, err = l.dir.Readdirnames(batch)
		if errors.Is(err, io.EOF) && l.again {
			l.again = false
			_, err = l.dir.Seek(0, io.SeekStart)
		}
		if errors.Is(err, io.EOF) {
			return "", false
		}

		if err != nil {
			w.fail(l, ".", err)
			return "", false
		}
	}

	return "", false
}

// removeNames deletes the names that were read until one is a directory that is not empty, and returns that
// one.
func (w *walker) removeNames(l *level) (string, bool) {
	for len(l.names) > 0 {
		name := l.names[0]
		l.names = l.names[1:]
		if l.kept[name] {
			continue
		}

		full, err := l.remove(name)
		if full {
			return name, true
		}
		if err != nil {
			w.fail(l, name, err)
		}
	}

	return "", false
}

// enter opens a directory, and closes the one that is too far above now.
func (w *walker) enter(above *level, name string) {
	if len(w.levels) > maxDepth {
		w.moveUp(above, name)
		return
	}

	fd, err := beneath.Open(
		above.fd,
		name,
		unix.O_RDONLY|unix.O_DIRECTORY,
		beneath.NoLinks|beneath.OneFileSystem,
	)

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
	// The first one is never closed, because no ".." leads back to it safely, nor is the tree's root.
	if far := len(w.levels) - 1 - window; far > 0 && w.levels[far] != w.root() {
		w.levels[far].close()
	}
}

// root is the directory that is the tree, or what is deleted in.
func (w *walker) root() *level {
	if w.levels[0].whole {
		return w.levels[1]
	}
	return w.levels[0]
}

// moveUp moves a directory to the root of the tree, which is read once more at its end.
func (w *walker) moveUp(above *level, name string) {
	root := w.root()
	move := func() error {
		var err error
		for range maxReturns {
			w.moved++
			to := fmt.Sprintf("moved-up-%d", w.moved)
			err = unix.Renameat2(above.fd, name, root.fd, to, unix.RENAME_NOREPLACE)
			if !errors.Is(err, unix.EEXIST) {
				break
			}
		}
		return err
	}

	err := move()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EXDEV) {
		// The second is that of a directory that takes only what is in its project.
		_, _, _ = loosen(root.fd), loosen(above.fd), loosenEntry(above.fd, name)
		err = move()
	}
	switch {
	case err == nil:
		root.again = true
	case errors.Is(err, unix.EBUSY):
		w.fail(above, name, ErrMounted)
	case !errors.Is(err, unix.ENOENT):
		w.fail(above, name, err)
	}
}

// leave returns to the directory above, and deletes the one that it leaves unless something in that stays.
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

	full, err := above.remove(left.name)
	if full {
		// A name was not read, or was created since: the directory is entered once more.
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

// fail records that an entry cannot be deleted.
func (w *walker) fail(l *level, name string, err error) {
	l.keep(name)
	w.failures = append(w.failures, fmt.Errorf("%s: %w", w.path(name), err))
}

// path returns the path of an entry of the present directory. Of a long one it returns the beginning and the
// end.
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

// remove deletes a file or an empty directory, see removeOne, also where its owner has forbidden that.
func (l *level) remove(name string) (full bool, err error) {
	full, err = removeOne(l.fd, name)
	if !errors.Is(err, unix.EPERM) {
		return full, err
	}

	if !l.whole {
		_ = loosen(l.fd)
	}
	_ = loosenEntry(l.fd, name)
	return removeOne(l.fd, name)
}

func (l *level) keep(name string) {
	if l.kept == nil {
		l.kept = map[string]bool{}
	}
	l.kept[name] = true
}

// reopen opens the directory again, as the parent of an open one. A directory that has been moved has another
// parent, which is an error.
func (l *level) reopen(below int) error {
	fd, err := beneath.Open(below, "..", unix.O_RDONLY|unix.O_DIRECTORY, beneath.OneFileSystem)
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

// close frees what the level holds, except for what is needed to open it again.
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

// identity returns what tells a directory from all others.
func identity(fd int) (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, 0, err
	}
	return st.Dev, st.Ino, nil
}

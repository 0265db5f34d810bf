package target

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
)

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

// Rel returns a path from the root on, "" for one that is not beneath it.
func (r *Root) Rel(name string) string {
	rel, ok := strings.CutPrefix(path.Clean(name), strings.TrimSuffix(r.path, "/")+"/")
	if !ok {
		return ""
	}
	return rel
}

// Point opens the directory that holds the path. With create set, missing directories on the way are made
// (0750); without it os.ErrNotExist is returned when one is missing. A path that is not clean, not beneath
// the root or leads through a symbolic link is ErrOutside.
func (r *Root) Point(name string, create bool) (*Point, error) {
	clean, rel := path.Clean(name), r.Rel(name)
	if rel == "" || clean != strings.TrimSuffix(name, "/") || strings.Contains(name, "\x00") {
		return nil, fmt.Errorf("%w: %q is not beneath %s", ErrOutside, name, r.path)
	}

	dir, base := path.Split(rel)
	parent, err := openDir(r.dir, path.Clean(dir), r.path)
	if errors.Is(err, os.ErrNotExist) && create {
		parent, err = r.create(path.Clean(dir))
	}
	if err != nil {
		return nil, err
	}

	return &Point{parent: parent, name: base, path: clean}, nil
}

// create makes the directories of dir one by one, each opened from the one before.
func (r *Root) create(dir string) (*os.File, error) {
	at, err := openDir(r.dir, ".", r.path)
	if err != nil {
		return nil, err
	}

	for part := range strings.SplitSeq(dir, "/") {
		if err := unix.Mkdirat(int(at.Fd()), part, 0o750); err != nil && !errors.Is(err, unix.EEXIST) {
			at.Close()
			return nil, &os.PathError{Op: "mkdir", Path: path.Join(at.Name(), part), Err: err}
		}

		next, err := openDir(at, part, at.Name())
		at.Close()
		if err != nil {
			return nil, err
		}

		at = next
	}

	return at, nil
}

// openDir opens a directory below at, whose path is shown in errors.
func openDir(at *os.File, dir, shown string) (*os.File, error) {
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

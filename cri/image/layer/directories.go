package layer

import (
	"archive/tar"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// directories are the directories that a layer makes, each by its place in the tree: a directory that several
// names lead to, by links, is there once, and is removed with all that is in it in one step. A directory is
// an index of all; that of the root is 0.
type directories struct {
	all []directory
	at  map[place]int32
}

// place is a name in a directory.
type place struct {
	parent int32
	base   string
}

type directory struct {
	place

	// described: it has an entry. Else it was made for one below it, and a lower layer may describe it.
	described bool

	opaque  bool // what lower layers have there is not seen
	stays   bool // Complete has found that it is where it belongs
	touched bool // Complete has changed what is in it
	gone    bool
	length  int32         // of its name below the root
	time    unix.Timespec // set at the end, since filling a directory changes its time
}

const (
	rootDirectory = int32(0)
	noDirectory   = int32(-1)

	maxDirectories = 1 << 20 // of one layer: they are kept in memory until it is in place
)

func newDirectories() *directories {
	return &directories{all: make([]directory, 1), at: make(map[place]int32)}
}

// child returns the directory of a name in another one.
func (d *directories) child(parent int32, base string) (int32, bool) {
	id, ok := d.at[place{parent, base}]
	return id, ok
}

// add adds a directory that was made.
func (d *directories) add(parent int32, base string) (int32, error) {
	if len(d.all) >= maxDirectories {
		return noDirectory, fmt.Errorf("layer has more than %d directories", maxDirectories)
	}

	length := d.all[parent].length + 1 + int32(len(base))

	// Through links, a short name can lead to a long one.
	if length >= unix.PathMax {
		return noDirectory, unix.ENAMETOOLONG
	}

	id := int32(len(d.all))

	// base is a part of a longer name, which must not stay in memory.
	at := place{parent, strings.Clone(base)}
	d.all = append(d.all, directory{place: at, length: length})
	d.at[at] = id
	return id, nil
}

// remove removes a directory. What is in it cannot be reached any more.
func (d *directories) remove(id int32) {
	d.all[id].gone = true
	delete(d.at, d.all[id].place)
}

// move gives a directory another place.
func (d *directories) move(id, parent int32, base string) {
	delete(d.at, d.all[id].place)
	d.all[id].place = place{parent, strings.Clone(base)}
	d.at[d.all[id].place] = id
}

// path returns the name of a directory below the layer's root. hidden says that lower layers are not seen
// there, ok that it still exists.
func (d *directories) path(id int32) (name string, hidden, ok bool) {
	var steps []string
	for ; id != rootDirectory; id = d.all[id].parent {
		dir := &d.all[id]
		if dir.gone {
			return "", false, false
		}
		hidden = hidden || dir.opaque
		steps = append(steps, dir.base)
	}
	slices.Reverse(steps)
	return strings.Join(steps, "/"), hidden, true
}

func (t *tree) root(h *tar.Header) error {
	return t.describeDirectory(openDirectory{t.fd, rootDirectory}, h)
}

// directory makes a directory, or describes the one that is there.
func (t *tree) directory(parent openDirectory, base string, h *tar.Header) error {
	id, known := t.dirs.child(parent.id, base)
	hides := false
	if !known {
		var err error
		if hides, err = t.mkdir(parent.fd, base, 0o700, true); err != nil {
			return err
		}
		if id, err = t.dirs.add(parent.id, base); err != nil {
			return err
		}
	}

	fd, err := openIn(parent.fd, base, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)

	dir := openDirectory{fd, id}

	// The layer removes a directory and makes a new one, in which nothing of the old one may be seen.
	if hides {
		if err := t.makeOpaque(dir); err != nil {
			return err
		}
	}

	return t.describeDirectory(dir, h)
}

func (t *tree) describeDirectory(dir openDirectory, h *tar.Header) error {
	at, err := timeOf(h.ModTime)
	if err != nil {
		return err
	}
	d := &t.dirs.all[dir.id]
	d.described = true
	d.time = at
	return t.describeFile(dir.fd, h)
}

// makeOpaque hides what lower layers have in a directory.
func (t *tree) makeOpaque(dir openDirectory) error {
	t.dirs.all[dir.id].opaque = true
	return setOpaque(dir.fd)
}

func setOpaque(fd int) error {
	if err := unix.Fsetxattr(fd, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return fmt.Errorf("make opaque: %w", err)
	}
	return nil
}

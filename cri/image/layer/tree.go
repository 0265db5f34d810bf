package layer

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/image/tape"
	"github.com/trivet-node/trivet/internal/beneath"
	"github.com/trivet-node/trivet/internal/removal"
)

// tree is a layer directory that is being filled. Links in a name are followed here and never lead above the
// root. Directories are opened by names in which no link is left; if there is one all the same, openat2(2)
// refuses it.
type tree struct {
	fd     int
	dirs   *directories
	result Result
	buffer []byte
	tape   *tape.Recorder // nil if there is none

	open  map[string]openDirectory // by the name that an entry gave
	stale bool                     // a name in open may lead elsewhere by now

	deferred int   // bytes of the names in result.links
	holes    int64 // bytes of zeros that were not written
}

// openDirectory is a directory of the layer with its descriptor.
type openDirectory struct {
	fd int
	id int32
}

const (
	maxOpen     = 64       // descriptors kept from one entry to the next
	maxDeferred = 32 << 20 // bytes of the names of hard links to lower layers
)

func newTree(dir string) (*tree, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}

	// The umask may have changed the mode.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}

	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}

	t := &tree{
		fd:     fd,
		dirs:   newDirectories(),
		buffer: make([]byte, chunkSize),
		open:   make(map[string]openDirectory),
	}

	return t, nil
}

func (t *tree) close() {
	t.closeAll()
	unix.Close(t.fd)
}

// closeUnneeded closes descriptors before an entry: none is closed while one is unpacked.
func (t *tree) closeUnneeded() {
	if t.stale || len(t.open) >= maxOpen {
		t.closeAll()
	}
}

func (t *tree) closeAll() {
	for name, dir := range t.open {
		unix.Close(dir.fd)
		delete(t.open, name)
	}
	t.stale = false
}

// openIn opens a name below the directory root in which there is no link.
func openIn(root int, name string, flags int) (int, error) {
	if name == "" {
		name = "."
	}
	return beneath.Open(root, name, flags, beneath.NoLinks)
}

// dir returns the directory of a name. With create, directories that are missing are made; else the error is
// unix.ENOENT.
func (t *tree) dir(name string, create bool) (openDirectory, error) {
	if name == "" {
		return openDirectory{t.fd, rootDirectory}, nil
	}
	if dir, ok := t.open[name]; ok {
		return dir, nil
	}

	dir, err := t.walk(name, create)
	if err != nil {
		return dir, fmt.Errorf("directory %q: %w", shorten(name), err)
	}

	t.open[name] = dir
	return dir, nil
}

// walk resolves the name of a directory step by step, in memory as far as it leads through the layer's own
// directories. The caller closes the descriptor.
func (t *tree) walk(name string, create bool) (dir openDirectory, err error) {
	dir = openDirectory{fd: -1, id: rootDirectory}
	defer func() {
		if err != nil && dir.fd >= 0 {
			unix.Close(dir.fd)
		}
	}()

	way := stepsOf(name)
	for step := way.next(); step != ""; step = way.next() {
		next := t.dirs.all[dir.id].parent
		known := true
		if step != ".." {
			next, known = t.dirs.child(dir.id, step)
		}

		if known {
			t.leave(&dir, next)
			continue
		}

		// The step is not a directory of the layer: it is a link, a file, or missing.
		if err := t.enter(&dir); err != nil {
			return dir, err
		}

		target, err := readlink(dir.fd, step)
		switch {
		case err == nil:
			if err := way.follow(target); err != nil {
				return dir, err
			}
			if path.IsAbs(target) {
				t.leave(&dir, rootDirectory)
			}

		case !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT):
			return dir, err
		case !create:
			return dir, unix.ENOENT
		default:
			if err := t.makeImplicit(&dir, step); err != nil {
				return dir, err
			}
		}
	}

	return dir, t.enter(&dir)
}

// leave makes another directory the present one, without opening it yet.
func (t *tree) leave(dir *openDirectory, to int32) {
	if dir.fd >= 0 {
		unix.Close(dir.fd)
	}
	*dir = openDirectory{fd: -1, id: to}
}

// enter opens the directory if it is not open.
func (t *tree) enter(dir *openDirectory) error {
	if dir.fd >= 0 {
		return nil
	}
	name, _, _ := t.dirs.path(dir.id)
	fd, err := openIn(t.fd, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == nil {
		dir.fd = fd
	}
	return err
}

// makeImplicit makes a directory for which there is no entry, and makes it the present one. One that replaces
// a whiteout hides the lower layers.
func (t *tree) makeImplicit(dir *openDirectory, base string) error {
	hides, err := t.mkdir(dir.fd, base, 0o755, false)
	if err != nil {
		return err
	}

	id, err := t.dirs.add(dir.id, base)
	if err != nil {
		return err
	}

	fd, err := openIn(dir.fd, base, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}

	unix.Close(dir.fd)
	*dir = openDirectory{fd, id}
	if hides {
		return t.makeOpaque(*dir)
	}

	return nil
}

// mkdir makes a directory.
func (t *tree) mkdir(parent int, base string, mode uint32, replace bool) (hides bool, err error) {
	replaced, hides, err := mkdir(parent, base, mode, replace)
	t.stale = t.stale || replaced
	if err != nil {
		return hides, fmt.Errorf("make directory: %w", err)
	}
	t.result.addDirectory()
	return hides, nil
}

// mkdir makes a directory. It replaces a whiteout (hides: the directory must hide the lower layers then) and,
// if replace is set, any other file; else the error is unix.ENOTDIR.
func mkdir(at int, name string, mode uint32, replace bool) (replaced, hides bool, err error) {
	err = unix.Mkdirat(at, name, mode)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return false, false, err
		}
		if hides = isWhiteout(&st); !hides && !replace {
			return false, false, unix.ENOTDIR
		}
		if err := unix.Unlinkat(at, name, 0); err != nil {
			return false, hides, err
		}

		replaced = true
		err = unix.Mkdirat(at, name, mode)
	}

	if err != nil {
		return replaced, hides, err
	}

	// The umask may have changed the mode.
	return replaced, hides, unix.Fchmodat(at, name, mode, 0)
}

// put makes a file by the function create. It removes what has that name, because the later entry counts.
func (t *tree) put(parent openDirectory, base string, create func() error) error {
	err := create()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}

	t.stale = true
	if id, ok := t.dirs.child(parent.id, base); ok {
		t.dirs.remove(id)
		err = removal.At(parent.fd, base)
	} else {
		err = unix.Unlinkat(parent.fd, base, 0)
	}

	if err != nil {
		return err
	}

	return create()
}

// whiteout hides a name of the lower layers. What this layer has under the name stays (OCI image-spec: a
// whiteout applies to lower layers only): a file hides the lower one in any case, a directory must become
// opaque.
func (t *tree) whiteout(parent openDirectory, base string) error {
	if base == "" || base == "." || base == ".." {
		return errors.New("whiteout of no name")
	}

	// The directory of this layer stays, and must hide the one below.
	if id, ok := t.dirs.child(parent.id, base); ok {
		fd, err := openIn(parent.fd, base, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer unix.Close(fd)

		return t.makeOpaque(openDirectory{fd, id})
	}

	err := unix.Mknodat(parent.fd, base, unix.S_IFCHR, 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make whiteout: %w", err)
	}

	t.result.Inodes++
	return nil
}

// hardlink links to an earlier file. If it is not in this layer, it may be in a layer below, where Complete
// finds it.
func (t *tree) hardlink(parent openDirectory, name, base, target string) error {
	if target == "" {
		return errors.New("hard link to the root")
	}

	from, err := t.dir(parentOf(target), false)
	if id, ok := t.dirs.child(from.id, path.Base(target)); err == nil && ok && !t.dirs.all[id].described {
		// A layer below may have a link there.
		err = unix.ENOENT
	}

	if err == nil {
		err = t.put(parent, base, func() error {
			return unix.Linkat(from.fd, path.Base(target), parent.fd, base, 0)
		})
	}

	if !errors.Is(err, unix.ENOENT) {
		if err != nil {
			return fmt.Errorf("link to %q: %w", shorten(target), err)
		}

		return nil
	}

	t.deferred += len(name) + len(target)
	if t.deferred > maxDeferred {
		return errors.New("too many hard links to files of lower layers")
	}

	t.result.links = append(t.result.links, link{name, target})
	return nil
}

// finish sets the times of directories.
func (t *tree) finish() error {
	for id := range t.dirs.all {
		d := &t.dirs.all[id]
		if !d.described {
			continue
		}

		name, _, ok := t.dirs.path(int32(id))
		if !ok {
			continue
		}
		if err := setDirectoryTime(t.fd, name, d.time); err != nil {
			return fmt.Errorf("time of %q: %w", shorten(name), err)
		}
	}

	t.result.dirs = t.dirs
	return nil
}

package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tree is a layer directory being filled. Everything is done relative to descriptors of its directories, which are opened with
// RESOLVE_IN_ROOT (openat2(2)): a symlink or ".." in the layer cannot lead out of it.
type tree struct {
	fd     int
	result Result
	buffer []byte

	open      map[string]int  // directories by name, to spare the lookups
	described map[string]bool // directories that had an entry, or (false) were made on the way to one
	times     []directoryTime // set at the end: filling a directory changes its time
}

type directoryTime struct {
	name string
	at   time.Time
}

// maxOpen bounds the descriptors kept for one layer.
const maxOpen = 64

func newTree(dir string) (*tree, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask
		return nil, err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return &tree{fd: fd, buffer: make([]byte, chunkSize), open: make(map[string]int), described: map[string]bool{"": false}}, nil
}

func (t *tree) close() {
	t.forgetAll()
	unix.Close(t.fd)
}

// openIn opens name below the directory root; links are followed, but never out of root.
func openIn(root int, name string, flags int) (int, error) {
	if name == "" {
		name = "."
	}
	for {
		fd, err := unix.Openat2(root, name, &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC),
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) { // EAGAIN: a rename elsewhere made ".." unsure
			continue
		}
		return fd, err
	}
}

// dir returns a descriptor of a directory, which it makes if the layer did not.
func (t *tree) dir(name string) (int, error) {
	if name == "" {
		return t.fd, nil
	}
	if fd, ok := t.open[name]; ok {
		return fd, nil
	}
	fd, err := openIn(t.fd, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		if err := t.makeImplicit(name); err != nil {
			return -1, err
		}
		fd, err = openIn(t.fd, name, unix.O_RDONLY|unix.O_DIRECTORY)
	}
	if err != nil {
		return -1, fmt.Errorf("directory %s: %w", name, err)
	}
	if len(t.open) >= maxOpen {
		t.forgetAll()
	}
	t.open[name] = fd
	return fd, nil
}

func (t *tree) makeImplicit(name string) error {
	base := path.Base(name)
	parent, err := t.dir(parentOf(name))
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return fmt.Errorf("%s is no directory", name) // e.g. a link to nowhere
	}
	if err := t.mkdir(parent, base, 0o755); err != nil {
		return err
	}
	t.described[name] = false
	return nil
}

func (t *tree) mkdir(parent int, base string, mode uint32) error {
	if err := unix.Mkdirat(parent, base, mode); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	t.result.Inodes++
	t.result.Bytes += 4096
	return unix.Fchmodat(parent, base, mode, 0) // whatever the umask
}

// forget closes the descriptors of what was at name and below.
func (t *tree) forget(name string) {
	t.forgetAll() // links can give one directory many names
	for dir := range t.described {
		if dir == name || strings.HasPrefix(dir, name+"/") {
			delete(t.described, dir)
		}
	}
	t.times = slices.DeleteFunc(t.times, func(d directoryTime) bool { return d.name == name || strings.HasPrefix(d.name, name+"/") })
}

func (t *tree) forgetAll() {
	for name, fd := range t.open {
		unix.Close(fd)
		delete(t.open, name)
	}
}

// clear takes away what an earlier entry of the layer put at a name; the later entry counts. It tells whether that was more than a file.
func (t *tree) clear(parent int, base string) (more bool, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return true, removeAt(parent, base)
	}
	return st.Mode&unix.S_IFMT == unix.S_IFLNK, unix.Unlinkat(parent, base, 0)
}

// removeAt deletes a tree below a descriptor.
func removeAt(parent int, base string) error {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", parent))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(base)
}

func (t *tree) root(h *tar.Header) error {
	t.described[""] = true
	t.times = append(t.times, directoryTime{"", h.ModTime})
	return t.describeFile(t.fd, h)
}

func (t *tree) directory(parent int, name, base string, h *tar.Header) error {
	var st unix.Stat_t
	err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	hidesLower := err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if err := unix.Unlinkat(parent, base, 0); err != nil {
			return err
		}
		t.forget(name)
		if parent, err = t.dir(parentOf(name)); err != nil {
			return err
		}
		err = unix.ENOENT
	}
	if errors.Is(err, unix.ENOENT) {
		err = t.mkdir(parent, base, 0o700)
	}
	if err != nil {
		return err
	}
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if hidesLower { // the layer removes a directory and makes a new one: nothing of the old one may show through
		if err := t.makeOpaque(fd); err != nil {
			return err
		}
	}
	t.described[name] = true
	t.times = append(t.times, directoryTime{name, h.ModTime})
	return t.describeFile(fd, h)
}

// makeOpaque hides what lower layers have in a directory.
func (t *tree) makeOpaque(dir int) error {
	if err := unix.Fsetxattr(dir, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return fmt.Errorf("make opaque: %w", err)
	}
	return nil
}

// whiteout hides a name of the lower layers. What this layer itself has under the name stays (OCI image-spec: a whiteout is about
// lower layers only): a file hides the lower one anyway, a directory must become opaque.
func (t *tree) whiteout(parent int, base string) error {
	if base == "" || base == "." || base == ".." {
		return errors.New("whiteout of no name")
	}
	err := unix.Mknodat(parent, base, unix.S_IFCHR, 0)
	if !errors.Is(err, unix.EEXIST) {
		if err != nil {
			return fmt.Errorf("make whiteout: %w", err)
		}
		t.result.Inodes++
		return nil
	}
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return t.makeOpaque(fd)
}

// hardlink links to an earlier file. One that is not in this layer may be in a layer below: Settle copies it.
func (t *tree) hardlink(parent int, name, base, target string) error {
	_, targetBase := path.Split(target)
	from, err := openIn(t.fd, parentOf(target), unix.O_PATH|unix.O_DIRECTORY)
	if err == nil {
		defer unix.Close(from)
		if targetBase == "" {
			return errors.New("hard link to a directory")
		}
		err = unix.Linkat(from, targetBase, parent, base, 0)
	}
	if errors.Is(err, unix.ENOENT) {
		t.result.links = append(t.result.links, link{name, target})
		return nil
	}
	if err != nil {
		return fmt.Errorf("link to %q: %w", target, err)
	}
	return nil
}

// finish sets the times of directories and lists those that the layer does not describe.
func (t *tree) finish() error {
	for _, d := range slices.Backward(t.times) {
		fd, err := openIn(t.fd, d.name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return fmt.Errorf("time of %s: %w", d.name, err)
		}
		err = setTime(fd, "", d.at, unix.AT_EMPTY_PATH)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("time of %s: %w", d.name, err)
		}
	}
	for name, described := range t.described {
		if !described {
			t.result.implicit = append(t.result.implicit, name)
		}
	}
	slices.Sort(t.result.implicit)
	return nil
}

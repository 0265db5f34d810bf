package layer

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Settle adds to an unpacked layer what it takes from those below (lower, the lowest first): owner and mode of directories that it only
// passes through, links among them, and files that it links to. Unpacking does not need the layers below, so that all can be unpacked at once.
func Settle(dir string, lower []string, result *Result) error {
	if len(result.implicit) == 0 && len(result.links) == 0 || len(lower) == 0 && len(result.links) == 0 {
		return nil
	}
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(root)
	below := make(view, 0, len(lower))
	defer func() {
		for _, fd := range below {
			unix.Close(fd)
		}
	}()
	for _, l := range slices.Backward(lower) {
		fd, err := unix.Open(l, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open layer %s: %w", l, err)
		}
		below = append(below, fd)
	}
	for _, l := range result.links {
		if err := copyUp(root, below, l, result); err != nil {
			return fmt.Errorf("hard link %q to %q: %w", l.name, l.target, err)
		}
	}
	implicit, err := through(dir, root, below, result.implicit)
	if err != nil {
		return err
	}
	for _, name := range implicit {
		if err := inherit(root, below, name); err != nil {
			return fmt.Errorf("directory %q: %w", name, err)
		}
	}
	return nil
}

// inherit gives a directory the owner, mode and time of the one that it is merged with.
func inherit(root int, below view, name string) error {
	_, st, err := below.at(name)
	if errors.Is(err, unix.ENOENT) || err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil // new in this layer
	}
	if err != nil {
		return err
	}
	fd, err := openIn(root, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) { // a later entry of the layer replaced it
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}

// copyUp makes a hard link to a file of a lower layer, which can only be a copy.
func copyUp(root int, below view, l link, result *Result) error {
	dir, err := below.resolve(parentOf(l.target))
	if err != nil {
		return err
	}
	target := path.Join(dir, path.Base(l.target))
	i, st, err := below.at(target)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("only regular files can be linked to across layers")
	}
	fd, err := openIn(below[i], target, unix.O_RDONLY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	from := os.NewFile(uintptr(fd), l.target)
	defer from.Close()
	_, base := path.Split(l.name)
	parent, err := openIn(root, parentOf(l.name), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	out, err := unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EEXIST) { // a later entry took the name
		return nil
	}
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(out), l.name)
	defer to.Close()
	n, err := from.WriteTo(to)
	if err != nil {
		return err
	}
	if err := copyAttributes(fd, out, st); err != nil {
		return err
	}
	result.Bytes, result.Inodes = result.Bytes+n, result.Inodes+1
	return nil
}

func copyAttributes(from, to int, st unix.Stat_t) error {
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	names := make([]byte, 64<<10)
	n, err := unix.Flistxattr(from, names)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:max(n, 0)]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		size, err := unix.Fgetxattr(from, name, value)
		if err != nil {
			return err
		}
		if err := setXattr(name, func() error { return unix.Fsetxattr(to, name, value[:size], 0) }); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(to, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}

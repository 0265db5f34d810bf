package layer

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// view is layers as overlayfs will show them, the uppermost first: descriptors of their directories.
type view []int

// at finds a name in the uppermost layer that has it (unix.ENOENT if none does). Names that a layer hides, be it by a whiteout or an opaque
// directory on the way, are not found. No link is followed; resolve does.
func (v view) at(name string) (layer int, st unix.Stat_t, err error) {
	for i, root := range v {
		st, found, covers, err := within(root, name)
		switch {
		case err != nil:
			return -1, st, fmt.Errorf("look for %q: %w", name, err)
		case found:
			return i, st, nil
		case covers:
			return -1, st, unix.ENOENT
		}
	}
	return -1, st, unix.ENOENT
}

// within looks for a name in one layer, step by step. covers says that what the layers below have of that name is not seen.
func within(root int, name string) (st unix.Stat_t, found, covers bool, err error) {
	if name == "" {
		return st, true, true, unix.Fstat(root, &st)
	}
	dir := root
	defer func() {
		if dir != root {
			unix.Close(dir)
		}
	}()
	for steps := strings.Split(name, "/"); ; steps = steps[1:] {
		err := unix.Fstatat(dir, steps[0], &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case errors.Is(err, unix.ENOENT):
			return st, false, covers, nil
		case err != nil:
			return st, false, false, err
		case st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0:
			return st, false, true, nil
		case len(steps) == 1:
			return st, true, true, nil
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return st, false, true, nil
		}
		next, err := unix.Openat(dir, steps[0], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return st, false, false, err
		}
		if dir != root {
			unix.Close(dir)
		}
		dir, covers = next, covers || isOpaque(next)
	}
}

func isOpaque(dir int) bool {
	n, err := unix.Fgetxattr(dir, "trusted.overlay.opaque", make([]byte, 1))
	return err == nil && n == 1
}

// resolve follows the links in a name, as they lead in a container: the root is above everything. What is not there is taken by its name.
func (v view) resolve(name string) (string, error) {
	const maxLinks = 40 // as the kernel
	done, links := "", 0
	for rest := strings.Split(name, "/"); len(rest) > 0; {
		step := rest[0]
		rest = rest[1:]
		switch step {
		case "", ".":
			continue
		case "..":
			done = parentOf(done)
			continue
		}
		next := path.Join(done, step)
		layer, st, err := v.at(next)
		if errors.Is(err, unix.ENOENT) || err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK {
			done = next
			continue
		}
		if err != nil {
			return "", err
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("follow %q: %w", name, unix.ELOOP)
		}
		to, err := v.readlink(layer, next)
		if err != nil {
			return "", err
		}
		if path.IsAbs(to) {
			done = ""
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return done, nil
}

func (v view) readlink(layer int, name string) (string, error) {
	parent, err := openIn(v[layer], parentOf(name), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", fmt.Errorf("read link %q: %w", name, err)
	}
	defer unix.Close(parent)
	text := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(parent, path.Base(name), text)
	if err != nil {
		return "", fmt.Errorf("read link %q: %w", name, err)
	}
	return string(text[:n]), nil
}

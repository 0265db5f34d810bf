package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// through moves what lies in a directory that the layer only passes through (it has lib/x and no entry for lib) and that is a link in the layers
// below (lib -> usr/lib) to where the link leads, as if it had been unpacked through it. Else the directory would hide the link, and all that
// is reached by it. It returns the directories that still take their owner and mode from below.
func through(dir string, root int, below view, implicit []string) ([]string, error) {
	own, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer own.Close()
	for {
		from, to, err := nextLink(root, below, implicit)
		if err != nil || from == "" {
			return implicit, err
		}
		made, err := makeWay(own, parentOf(to))
		if err != nil {
			return nil, fmt.Errorf("%q, where %q leads: %w", to, from, err)
		}
		for _, name := range implicit {
			if rest, inside := strings.CutPrefix(name+"/", from+"/"); inside {
				name = path.Join(to, rest)
				if _, err := own.Lstat(path.Clean(name)); err == nil {
					continue // the layer has that, too, and perhaps with an entry
				}
			}
			made = append(made, name)
		}
		if err := merge(own, from, path.Clean(to)); err != nil {
			return nil, fmt.Errorf("move %q to %q, where it leads: %w", from, to, err)
		}
		slices.Sort(made)
		implicit = slices.Compact(made)
	}
}

// nextLink finds the first directory that is to be moved; from is "" if none is left. Its own links count together with those below.
func nextLink(root int, below view, implicit []string) (from, to string, err error) {
	all := append(view{root}, below...)
	for _, name := range implicit {
		layer, st, err := below.at(name)
		if errors.Is(err, unix.ENOENT) || err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK {
			continue
		}
		if err != nil {
			return "", "", err
		}
		target, err := below.readlink(layer, name)
		if err != nil {
			return "", "", err
		}
		if !path.IsAbs(target) {
			target = parentOf(name) + "/" + target
		}
		to, err := all.resolve(target)
		if errors.Is(err, unix.ELOOP) {
			continue
		}
		if err != nil {
			return "", "", err
		}
		leads, err := all.isDirectory(to)
		if err != nil {
			return "", "", err
		}
		passed, err := passesThrough(root, name)
		if err != nil {
			return "", "", err
		}
		if leads && passed && !strings.HasPrefix(to+"/", name+"/") {
			return name, to, nil
		}
	}
	return "", "", nil
}

// isDirectory tells whether a resolved name is, or can become, a directory.
func (v view) isDirectory(name string) (bool, error) {
	_, st, err := v.at(name)
	if errors.Is(err, unix.ENOENT) {
		return true, nil
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, err
}

// passesThrough tells whether the layer has a directory there in which it has not said that nothing of the layers below be seen.
func passesThrough(root int, name string) (bool, error) {
	fd, err := openIn(root, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) { // a later entry of the layer replaced it
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("directory %q: %w", name, err)
	}
	defer unix.Close(fd)
	return !isOpaque(fd), nil
}

// makeWay makes the directories on the way to a name and returns those that were not there.
func makeWay(own *os.Root, name string) (made []string, err error) {
	if name == "" {
		return nil, nil
	}
	if made, err = makeWay(own, parentOf(name)); err != nil {
		return nil, err
	}
	err = own.Mkdir(name, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return made, nil
	}
	return append(made, name), err
}

// merge moves a file or tree to a name at which there may be one. Of two files, the one that is moved counts.
func merge(own *os.Root, from, to string) error {
	there, err := own.Lstat(to)
	if errors.Is(err, fs.ErrNotExist) {
		return own.Rename(from, to)
	}
	if err != nil {
		return err
	}
	moved, err := own.Lstat(from)
	if err != nil {
		return err
	}
	if !there.IsDir() || !moved.IsDir() {
		return errors.Join(own.RemoveAll(to), own.Rename(from, to))
	}
	dir, err := own.Open(from)
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if err := merge(own, path.Join(from, name), path.Join(to, name)); err != nil {
			return err
		}
	}
	return own.Remove(from)
}

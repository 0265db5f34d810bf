package layer

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// below are the layers below one, as overlayfs will show them. They do not change, so the layers that have a
// directory are remembered: to find a name costs one system call for each of these, not one for each step and
// layer.
type below struct {
	roots []int              // descriptors, that of the uppermost layer first
	seen  map[string][]int16 // directory -> indexes of the layers that it is merged from
}

const maxSeen = 4096

// openBelow opens layers that are given the lowest first.
func openBelow(lower []string) (*below, error) {
	b := &below{seen: make(map[string][]int16)}
	for _, dir := range slices.Backward(lower) {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			b.close()
			return nil, fmt.Errorf("open layer %s: %w", dir, err)
		}
		b.roots = append(b.roots, fd)
	}
	return b, nil
}

func (b *below) close() {
	for _, fd := range b.roots {
		unix.Close(fd)
	}
}

// at finds a name in the uppermost layer that has it. The error is unix.ENOENT if none has it, or if one
// above hides it. No link is followed.
func (b *below) at(name string) (layer int, st unix.Stat_t, err error) {
	if name == "" {
		if len(b.roots) == 0 {
			return -1, st, unix.ENOENT
		}

		return 0, st, unix.Fstat(b.roots[0], &st)
	}

	layers, err := b.layersOf(parentOf(name))
	if err != nil {
		return -1, st, err
	}

	for _, i := range layers {
		err := unix.Fstatat(b.roots[i], name, &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case errors.Is(err, unix.ENOENT):
			continue
		case err != nil:
			return -1, st, fmt.Errorf("look for %q in the layers below: %w", shorten(name), err)
		case isWhiteout(&st):
			return -1, st, unix.ENOENT
		}

		return int(i), st, nil
	}

	return -1, st, unix.ENOENT
}

// layersOf returns the layers whose directories of that name are seen, the uppermost first.
func (b *below) layersOf(dir string) (layers []int16, err error) {
	if layers, known := b.seen[dir]; known {
		return layers, nil
	}

	if dir == "" {
		for i := range b.roots {
			layers = append(layers, int16(i))
		}
	} else {
		within, err := b.layersOf(parentOf(dir))
		if err != nil {
			return nil, err
		}
		if layers, err = b.merged(dir, within); err != nil {
			return nil, fmt.Errorf("look for %q in the layers below: %w", shorten(dir), err)
		}
	}

	// A layer with very many directories must not cost memory without bound.
	if len(b.seen) >= maxSeen {
		clear(b.seen)
	}

	b.seen[dir] = layers
	return layers, nil
}

// merged returns the layers whose directories are merged, out of those that have the parent: down to the
// first that hides the others.
func (b *below) merged(dir string, within []int16) (layers []int16, err error) {
	for _, i := range within {
		var st unix.Stat_t
		err := unix.Fstatat(b.roots[i], dir, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return layers, nil
		}

		layers = append(layers, i)
		hides, err := isOpaque(b.roots[i], dir)
		if err != nil || hides {
			return layers, err
		}
	}

	return layers, nil
}

func isOpaque(root int, dir string) (bool, error) {
	fd, err := openIn(root, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	n, err := unix.Fgetxattr(fd, "trusted.overlay.opaque", make([]byte, 1))
	return err == nil && n == 1, nil
}

// readlink reads a link that at has found.
func (b *below) readlink(layer int, name string) (string, error) {
	target, err := readlink(b.roots[layer], name)
	if err != nil {
		return "", fmt.Errorf("read link %q: %w", shorten(path.Base(name)), err)
	}
	return target, nil
}

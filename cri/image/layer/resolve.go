package layer

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// steps are the elements that are left of a name that is being resolved. Links add more in front, with a
// bound: else a short name that leads through long links would cost many times the work of reading it.
type steps struct {
	left         []string
	links, added int
}

const (
	maxLinks      = 40 // as the kernel
	maxAddedSteps = 1024
)

// stepsOf returns the steps of a name.
func stepsOf(name string) steps { return steps{left: strings.Split(name, "/")} }

// next returns the next step; "" at the end.
func (s *steps) next() string {
	for len(s.left) > 0 {
		step := s.left[0]
		s.left = s.left[1:]
		if step != "" && step != "." {
			return step
		}
	}
	return ""
}

// follow adds the target of a link in front.
func (s *steps) follow(target string) error {
	added := strings.Split(target, "/")
	s.links++
	s.added += len(added)
	if s.links > maxLinks || s.added > maxAddedSteps {
		return fmt.Errorf("follow links: %w", unix.ELOOP)
	}
	s.left = append(added, s.left...)
	return nil
}

// parentOf returns the directory of a name; "" for the root.
func parentOf(name string) string {
	dir, _ := path.Split(name)
	return strings.TrimSuffix(dir, "/")
}

// join returns the name of base in a directory; that of the root is "".
func join(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}

// readlink reads a link below the directory root. The error is EINVAL if the file is not a link.
func readlink(root int, name string) (string, error) {
	text := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(root, name, text)
	if err != nil {
		return "", err
	}
	return string(text[:n]), nil
}

func isWhiteout(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

// merged is a layer and those below it, seen as one tree.
type merged struct {
	root  int // descriptor of the layer
	dirs  *directories
	below *below
}

// spot is a name in which no link is left.
type spot struct {
	name   string
	own    int32 // the layer's directory of that name, or noDirectory
	hidden bool  // the layers below are not seen there
}

// resolve follows the links in a name as a container does, whose root nothing leads above. Elements that do
// not exist are kept.
func (m *merged) resolve(name string) (spot, error) {
	passed := []spot{{own: rootDirectory}}
	way := stepsOf(name)
	for step := way.next(); step != ""; step = way.next() {
		// ".." leaves the directory by the way that led to it, and never the root.
		if step == ".." {
			passed = passed[:max(1, len(passed)-1)]
			continue
		}

		next, target, err := m.step(passed[len(passed)-1], step)
		if err != nil {
			return spot{}, err
		}

		if target == "" {
			passed = append(passed, next)
			continue
		}

		if err := way.follow(target); err != nil {
			return spot{}, err
		}
		if path.IsAbs(target) {
			passed = passed[:1]
		}
	}

	return passed[len(passed)-1], nil
}

// step goes to a name in a directory. If it is a link, target is where it leads. A directory for which the
// layer has no entry is what the layers below say, unless Complete has found that it stays.
func (m *merged) step(here spot, base string) (next spot, target string, err error) {
	next = spot{name: join(here.name, base), own: noDirectory, hidden: here.hidden}
	if len(next.name) >= unix.PathMax {
		return next, "", fmt.Errorf("follow links to %q: %w", shorten(next.name), unix.ENAMETOOLONG)
	}

	if own, ok := m.dirs.child(here.own, base); ok {
		dir := &m.dirs.all[own]
		next.own = own
		next.hidden = here.hidden || dir.opaque
		if next.hidden || dir.described || dir.stays {
			return next, "", nil
		}
	} else if here.own != noDirectory {
		target, err := readlink(m.root, next.name)

		// It is a file or a whiteout.
		if errors.Is(err, unix.EINVAL) {
			next.hidden = true
			return next, "", nil
		}

		if !errors.Is(err, unix.ENOENT) {
			return next, target, err
		}
	}

	if next.hidden {
		return next, "", nil
	}

	layer, st, err := m.below.at(next.name)
	if errors.Is(err, unix.ENOENT) {
		return next, "", nil
	}
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return next, "", err
	}

	target, err = m.below.readlink(layer, next.name)
	return next, target, err
}

// canBeDirectory reports whether there is a directory, or one can be made. It does not look at the
// directories above.
func (m *merged) canBeDirectory(s spot) (bool, error) {
	if s.own != noDirectory {
		return true, nil
	}

	var st unix.Stat_t
	err := unix.Fstatat(m.root, s.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		return isWhiteout(&st), nil
	}
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
		return false, err
	}
	if s.hidden {
		return true, nil
	}

	_, st, err = m.below.at(s.name)
	if errors.Is(err, unix.ENOENT) {
		return true, nil
	}

	return st.Mode&unix.S_IFMT == unix.S_IFDIR, err
}

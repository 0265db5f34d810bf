package layer

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// steps are what is left of the way to a name. Links put more in front, with bounds on how much: else a short name that leads through long
// links costs many times the work of reading it.
type steps struct {
	left         []string
	links, added int
}

const (
	maxLinks      = 40 // as the kernel
	maxAddedSteps = 1024
)

// stepsOf cuts a name.
func stepsOf(name string) steps { return steps{left: strings.Split(name, "/")} }

// next returns the next step; "" is none.
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

// follow puts the target of a link in front.
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

// parentOf is "" for what is in the root.
func parentOf(name string) string {
	dir, _ := path.Split(name)
	return strings.TrimSuffix(dir, "/")
}

// join is a name in a directory; that of the root is "".
func join(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}

// readlink reads a link below the directory root. The error is EINVAL for what is no link.
func readlink(root int, name string) (string, error) {
	text := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(root, name, text)
	if err != nil {
		return "", err
	}
	return string(text[:n]), nil
}

func isWhiteout(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

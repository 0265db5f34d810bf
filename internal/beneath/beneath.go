// Package beneath opens names below a directory that somebody else writes to, such as the volume of a
// container, and never leaves that directory: the kernel resolves the whole name under a rule
// (openat2(2), Linux 5.6), whatever symbolic links there are and however they change meanwhile.
//
// It stands in place of os.Root, which looks up each component by a system call of its own, always follows
// symbolic links that stay inside, crosses mount points, and for O_PATH returns the link instead of what
// it leads to. Mounts are made from O_PATH descriptors, and most callers here follow no link at all.
package beneath

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Rule says what a name may lead through. Rules are combined with |.
type Rule uint64

const (
	// Links follows symbolic links as long as they stay below the directory. An absolute one does not.
	Links Rule = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS

	// NoLinks stays below the directory and follows no symbolic link, the last component included.
	NoLinks = Links | unix.RESOLVE_NO_SYMLINKS

	// OneFileSystem enters no other mount, bind mounts included. Alone it allows everything else: ".."
	// leads to the parent, as walkers need it that come back from a directory below.
	OneFileSystem Rule = unix.RESOLVE_NO_XDEV
)

// retries bounds how often a name is resolved again. The kernel gives up (EAGAIN) when something was renamed
// while it resolved a name with "..": it does not know then whether that is still below the directory.
const retries = 128

// Open opens name below the open directory dir, with the flags of open(2), and returns a descriptor that the
// caller closes. O_CLOEXEC is added. It creates nothing.
//
// Errors are those of openat2(2): see Outside for a name that breaks the rule.
func Open(dir int, name string, flags int, rule Rule) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: uint64(rule),
	}

	fd, err := unix.Openat2(dir, name, &how)
	for range retries {
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}

		fd, err = unix.Openat2(dir, name, &how)
	}

	return fd, err
}

// Outside reports whether an error of Open says that the name would have led out of the directory, through a
// symbolic link that the rule forbids, or into another mount.
func Outside(err error) bool { return errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ELOOP) }

// Path is a path that leads to what fd stands for, for system calls that take no descriptor or refuse one
// that was opened with O_PATH. It is valid while fd is open, in this process.
func Path(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

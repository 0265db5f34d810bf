// Package projectquota counts what is below a directory by the project quota of its file system (ext4 and xfs
// that are mounted with prjquota; quotactl(2), ioctl_xfs_fsgetxattr(2)), and limits it. The kernel keeps the
// figures, so that reading them costs the same for a million files.
//
// The owner of a file may take it out of its project, unless he is in a user namespace: the figures are those
// of programs that do not try.
//
// Assign and Of are for directories whose numbers are nobody's business, and that are only counted. Put, Look
// and Limit are for who chooses the numbers.
package projectquota

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNone says that a directory has no project of ours.
var ErrNone = errors.New("the directory has no project")

// Usage is what a project takes of the disk.
type Usage struct {
	Bytes  uint64
	Inodes uint64
}

const (
	// The kernel's header linux/fs.h.
	getAttributes = 0x801c581f
	setAttributes = 0x401c5820
	inherit       = 0x200

	// Projects of ours have numbers from firstID on, less than twice that: those of administrators and of
	// kubelet are small.
	firstID = 1 << 30

	// attempts is how many numbers are tried until one is free.
	attempts = 16
)

// attributes is struct fsxattr.
type attributes struct {
	flags    uint32
	extents  [2]uint32
	project  uint32
	reserved [3]uint32
}

// Assign gives an empty directory a project of its own, which everything that is made below inherits. A
// directory that has one already keeps it. The error is errors.ErrUnsupported where the file system, or the
// kernel, does not count projects.
func Assign(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()

	attr, err := attributesOf(f)
	if err != nil || attr.ours() {
		return err
	}

	for range attempts {
		attr.project = firstID + rand.Uint32N(firstID)
		attr.flags |= inherit
		used, err := usageOf(f, attr.project)
		if err != nil {
			return err
		}
		if used != (Usage{}) {
			continue
		}

		if err := control(f, setAttributes, &attr); err != nil {
			return fmt.Errorf("give %s the project %d: %w", dir, attr.project, unsupported(err))
		}

		// Somebody else may have found the same number free.
		if used, err = usageOf(f, attr.project); err != nil || used.Inodes == 1 {
			return err
		}
	}

	return fmt.Errorf("give %s a project: no number is free", dir)
}

// Of returns what the project of a directory takes, the directory included. The error is ErrNone for one that
// has no project of ours, or is on a file system without.
func Of(dir string) (Usage, error) {
	f, err := os.Open(dir)
	if err != nil {
		return Usage{}, err
	}
	defer f.Close()

	attr, err := attributesOf(f)
	if errors.Is(err, errors.ErrUnsupported) || err == nil && !attr.ours() {
		return Usage{}, ErrNone
	}
	if err != nil {
		return Usage{}, err
	}

	used, err := usageOf(f, attr.project)
	if errors.Is(err, errors.ErrUnsupported) {
		// It was mounted with project quotas once.
		return Usage{}, ErrNone
	}

	return used, err
}

// ours reports whether the project is one that Assign gives.
func (a attributes) ours() bool {
	return a.flags&inherit != 0 && a.project >= firstID && a.project < 2*firstID
}

func attributesOf(f *os.File) (attributes, error) {
	var a attributes
	if err := control(f, getAttributes, &a); err != nil {
		return a, fmt.Errorf("project of %s: %w", f.Name(), unsupported(err))
	}
	return a, nil
}

// control is ioctl(2) with attributes.
func control(f *os.File, request uintptr, a *attributes) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(a)))
	if errno != 0 {
		return errno
	}
	return nil
}

// usageOf asks the file system for a project's use; one that nobody has used takes nothing.
func usageOf(f *os.File, project uint32) (Usage, error) {
	used, _, err := Look(f, project)
	return used, err
}

// unsupported turns the errors of file systems and kernels that do not count projects into
// errors.ErrUnsupported. ESRCH is that of one that is mounted without.
func unsupported(err error) error {
	for _, is := range []error{unix.ENOTTY, unix.EOPNOTSUPP, unix.ENOSYS, unix.ESRCH, unix.EINVAL} {
		if errors.Is(err, is) {
			return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		}
	}
	return err
}

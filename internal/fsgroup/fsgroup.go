// Package fsgroup gives a volume to a pod's fsGroup: every file gets the group and is readable and writable
// by it, every directory passes the group on to what is made in it (setgid). It acts on file descriptors, so
// that a container which renames things at the same time cannot lead it out of the volume, and it does not
// cross mount points.
package fsgroup

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
)

const (
	writable  = 0o660
	readOnly  = 0o440
	directory = 0o110 | unix.S_ISGID
)

// Apply gives the tree at root to the group gid; with onlyRead set the group may only read. With onMismatch
// set it looks at the root directory only, and changes nothing if that is right (fsGroupChangePolicy
// OnRootMismatch). The root is changed last, so that an interrupted run is repeated.
func Apply(ctx context.Context, root string, gid int64, onlyRead, onMismatch bool) error {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open volume %s: %w", root, err)
	}
	f := os.NewFile(uintptr(fd), root)
	defer f.Close()
	return ApplyTo(ctx, f, gid, onlyRead, onMismatch)
}

// ApplyTo is Apply for an open root directory.
func ApplyTo(ctx context.Context, root *os.File, gid int64, onlyRead, onMismatch bool) error {
	t := tree{gid: int(gid), mask: writable}
	if onlyRead {
		t.mask = readOnly
	}

	fd := int(root.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat volume %s: %w", root.Name(), err)
	}
	if onMismatch && t.isRight(&st) {
		return nil
	}

	err := t.below(ctx, fd, &st)
	if err == nil {
		err = t.apply(fd, &st)
	}
	if err != nil {
		return fmt.Errorf("give volume %s to group %d: %w", root.Name(), gid, err)
	}

	return nil
}

// tree is what all files of a volume are to have.
type tree struct {
	gid int

	// mask are the permissions that files get, beside those that they have.
	mask uint32
}

// mode is what a file's mode is to be.
func (t tree) mode(st *unix.Stat_t) uint32 {
	mode := st.Mode&0o7777 | t.mask
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		mode |= directory
	}
	return mode
}

// isRight reports whether a file has the group and the mode.
func (t tree) isRight(st *unix.Stat_t) bool {
	return int(st.Gid) == t.gid && st.Mode&0o7777 == t.mode(st)
}

// apply changes what fd (O_PATH) stands for.
func (t tree) apply(fd int, st *unix.Stat_t) error {
	if t.isRight(st) {
		return nil
	}
	if err := unix.Fchownat(fd, "", -1, t.gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}

	// Fchmod(2) refuses O_PATH descriptors; the path of one leads to the same inode.
	if err := unix.Chmod(beneath.Path(fd), t.mode(st)); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}

	return nil
}

package loopfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/volume"
)

// unusedMark is an attribute of files that were made and never attached: there is certainly no data in them.
// It distinguishes what a power loss left of a creation that was never acknowledged from a volume whose
// record is lost.
const unusedMark = "user.trivet.unused"

// markUnused marks a new file. Where the disk's file system has no attributes, every file counts as used.
func markUnused(f *os.File) { _ = unix.Fsetxattr(int(f.Fd()), unusedMark, []byte{'1'}, 0) }

func isUnused(path string) bool {
	_, err := unix.Lgetxattr(path, unusedMark, nil)
	return err == nil
}

// markUsed takes the mark off, so that not even a power loss puts it back, before anybody can write to the
// file.
func markUsed(path string) error {
	if !isUnused(path) {
		return nil
	}

	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()

	if err := unix.Fremovexattr(int(f.Fd()), unusedMark); err != nil && !errors.Is(err, unix.ENODATA) {
		return fmt.Errorf("mark %s as used: %w", path, err)
	}

	return f.Sync()
}

// allocate gives the file its size and, where the disk's file system can, all its blocks: what was promised
// is there when it is written, whatever else has filled the disk meanwhile.
func allocate(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return f.Truncate(size)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: allocate %d bytes for %s: %w", volume.ErrFull, size, f.Name(), err)
	}
	return fmt.Errorf("allocate %d bytes for %s: %w", size, f.Name(), err)
}

// overwriteInPlace lets files that are made in dir keep their blocks when they are written over, on a btrfs,
// which would look for new ones each time: those are not reserved.
func overwriteInPlace(dir string) error {
	if !btrfs.On(dir) {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return btrfs.OverwriteInPlace(f)
}

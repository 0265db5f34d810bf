package loopfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/volume"
)

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

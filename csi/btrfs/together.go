package btrfs

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Subvolumes can be limited together, beside the limit of each: their groups are members of one group above.
// Only a simple quota has that without counting everything again.
const together = (level+1)<<48 | 1

// LimitedTogether has a limited subvolume count for the limit of all that are limited together. It stays so
// until the subvolume is destroyed. Where nothing is wrong it only reads.
func LimitedTogether(f *os.File, sub Subvolume) error {
	if already, err := isLimitedTogether(f, sub); already || err != nil {
		return err
	}

	err := ioctl(f, iocQgroupCreate, &qgroupCreate{create: 1, id: together})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make the quota group of many subvolumes of %s: %w", f.Name(), err)
	}
	if err := assign(f, 1, groupOf(sub.ID), together); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("limit subvolume %d of %s together with others: %w", sub.ID, f.Name(), err)
	}
	return nil
}

func isLimitedTogether(f *os.File, sub Subvolume) (bool, error) {
	groups, err := search(f, quotaTree, groupOf(sub.ID), qgroupRelation)
	return slices.Contains(groups, together), err
}

// LimitTogether lets all subvolumes that are limited together hold at most so many bytes; -1: as many as each
// of them may. If there are none it does nothing.
func LimitTogether(f *os.File, bytes int64) error {
	arg := qgroupLimit{id: together, flags: limitMaxReferenced, maxReferenced: noLimit}
	if bytes >= 0 {
		arg.maxReferenced = uint64(bytes)
	}
	err := ioctl(f, iocQgroupLimit, &arg)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("limit many subvolumes of %s to %d bytes: %w", f.Name(), bytes, err)
	}
	return nil
}

// UsageTogether returns how many bytes are charged to those that are limited together, and their limit; -1:
// there is none.
func UsageTogether(fs Info) (used, limit int64, err error) {
	name := fmt.Sprintf("%d_%d", level+1, together&(1<<48-1))
	used, err = referenced(fs, name)
	if errors.Is(err, os.ErrNotExist) {
		return 0, -1, nil
	}
	return used, maxReferenced(fs, name), err
}

package btrfs

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Subvolumes can be limited together, beside the limit of each: their groups are members of shards, and those
// of one group at the top. When a group is taken into another one, or out of it, the kernel goes through all
// members of that: none may have thousands. Only a simple quota has such groups without counting everything
// again.
const (
	shardLevel = level + 1
	shards     = 256
	together   = (shardLevel+1)<<48 | 1

	// shardOfEarlier is the shard of what earlier versions limited together, who had one group for all.
	shardOfEarlier = shardLevel<<48 | 1
)

func shardOf(sub Subvolume) uint64 { return shardOfEarlier + 1 + sub.ID%shards }

// LimitedTogether has a limited subvolume count for the limit of all that are limited together. It stays so
// until the subvolume is destroyed. Where nothing is wrong it only reads.
func LimitedTogether(f *os.File, sub Subvolume) error {
	if already, err := isLimitedTogether(f, sub); already || err != nil {
		return err
	}

	// The shard counts before anything is in it: what a subvolume holds is never left out.
	shard := shardOf(sub)
	if err := joinTogether(f, shard); err != nil {
		return err
	}
	if err := assign(f, 1, groupOf(sub.ID), shard); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("limit subvolume %d of %s together with others: %w", sub.ID, f.Name(), err)
	}
	return nil
}

func isLimitedTogether(f *os.File, sub Subvolume) (bool, error) {
	groups, err := search(f, quotaTree, groupOf(sub.ID), qgroupRelation)
	return slices.ContainsFunc(groups, isShard), err
}

func isShard(group uint64) bool { return group>>48 == shardLevel && group != shardOfEarlier }

// joinTogether has a shard, which it makes if need be, count for the limit of all.
func joinTogether(f *os.File, shard uint64) error {
	groups, err := search(f, quotaTree, shard, qgroupRelation)
	if err != nil || slices.Contains(groups, together) {
		return err
	}

	for _, group := range []uint64{together, shard} {
		err := ioctl(f, iocQgroupCreate, &qgroupCreate{create: 1, id: group})
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make the quota groups of many subvolumes of %s: %w", f.Name(), err)
		}
	}
	if err := assign(f, 1, shard, together); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("limit the subvolumes of a shard of %s together with others: %w", f.Name(), err)
	}
	return nil
}

// KeepTogether has what an earlier version limited together be so with all others: in their shards, with the
// limit that they had until LimitTogether sets another one. Where there is nothing of an earlier version it
// only looks for that. What was cut short, or has failed, is done by the next call.
func KeepTogether(f *os.File, fs Info) error {
	_, err := os.Stat(groupsPath(fs) + "/" + nameOf(shardOfEarlier))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = dissolveEarlier(f, fs)
	}
	if err != nil {
		return fmt.Errorf("limit what an earlier version made in %s together with others: %w", f.Name(), err)
	}
	return nil
}

func dissolveEarlier(f *os.File, fs Info) error {
	groups, err := search(f, quotaTree, shardOfEarlier, qgroupRelation)
	if err != nil {
		return err
	}

	// What would count for the top in two ways while it is moved would be wrong there ever after.
	if slices.Contains(groups, together) {
		if err := assign(f, 0, shardOfEarlier, together); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}

	// The limit is there before what it is for.
	err = ioctl(f, iocQgroupCreate, &qgroupCreate{create: 1, id: together})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	limit := maxReferenced(fs, nameOf(shardOfEarlier))
	if limit >= 0 && maxReferenced(fs, nameOf(together)) < 0 {
		if err := LimitTogether(f, limit); err != nil {
			return err
		}
	}

	for _, group := range groups {
		if group>>48 != level {
			continue
		}
		if err := moveToShard(f, group); err != nil {
			return err
		}
	}

	err = ioctl(f, iocQgroupCreate, &qgroupCreate{create: 0, id: shardOfEarlier})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove its quota group: %w", err)
	}
	return nil
}

// moveToShard takes the group of a limited subvolume out of what an earlier version limited together. One
// that is gone meanwhile is none of it.
func moveToShard(f *os.File, group uint64) error {
	sub := Subvolume{ID: group &^ (level << 48)}
	if err := LimitedTogether(f, sub); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	err := assign(f, 0, group, shardOfEarlier)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("take subvolume %d out of its quota group: %w", sub.ID, err)
	}
	return nil
}

// LimitTogether lets all subvolumes that are limited together hold at most so many bytes; -1: as many as each
// of them may. If there are none it does nothing.
func LimitTogether(f *os.File, bytes int64) error { return limitGroup(f, together, bytes) }

func limitGroup(f *os.File, group uint64, bytes int64) error {
	arg := qgroupLimit{id: group, flags: limitMaxReferenced, maxReferenced: noLimit}
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
	used, err = referenced(fs, nameOf(together))
	if errors.Is(err, os.ErrNotExist) {
		return 0, -1, nil
	}
	return used, maxReferenced(fs, nameOf(together)), err
}

// nameOf is the name of a group in sysfs(5).
func nameOf(group uint64) string { return fmt.Sprintf("%d_%d", group>>48, group&(1<<48-1)) }

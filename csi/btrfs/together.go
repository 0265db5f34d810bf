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
func LimitedTogether(f *os.File, fs Info, sub Subvolume) error {
	if already, err := isLimitedTogether(f, sub); already || err != nil {
		return err
	}

	// While there is the group of an earlier version it has all of them, see KeepTogether.
	earlier, err := hasEarlier(fs)
	if err != nil {
		return err
	}
	if earlier {
		err := assign(f, 1, groupOf(sub.ID), shardOfEarlier)
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("limit subvolume %d of %s together with others: %w", sub.ID, f.Name(), err)
		}
	}
	return joinShard(f, sub)
}

// joinShard makes the group of a limited subvolume a member of its shard.
func joinShard(f *os.File, sub Subvolume) error {
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

// hasEarlier reports whether there is the group of an earlier version.
func hasEarlier(fs Info) (bool, error) {
	_, err := os.Lstat(groupsPath(fs) + "/" + nameOf(shardOfEarlier))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// KeepTogether has what an earlier version limited together be so with all others: in their shards, with the
// limit that they had until LimitTogether sets another one. Where there is nothing of an earlier version it
// only looks for that. What was cut short, or has failed, is done by the next call: until all are in shards
// the group of the earlier version has all of them, and from then on that of all does, so that one limit is
// that of all at any time.
func KeepTogether(f *os.File, fs Info) error {
	if earlier, err := hasEarlier(fs); err != nil || !earlier {
		return err
	}
	if err := dissolveEarlier(f, fs); err != nil {
		return fmt.Errorf("limit what an earlier version made in %s together with others: %w", f.Name(), err)
	}
	return nil
}

func dissolveEarlier(f *os.File, fs Info) error {
	groups, err := search(f, quotaTree, shardOfEarlier, qgroupRelation)
	if err != nil {
		return err
	}
	if slices.Contains(groups, together) {
		if err := standAlone(f, fs); err != nil {
			return err
		}
	}
	members := slices.DeleteFunc(groups, func(group uint64) bool { return group>>48 != level })

	for _, group := range members {
		if err := enterShard(f, group); err != nil {
			return err
		}
	}

	if limit := maxReferenced(fs, nameOf(shardOfEarlier)); limit != maxReferenced(fs, nameOf(together)) {
		if err := limitGroup(f, together, limit); err != nil {
			return err
		}
	}

	for _, group := range members {
		if err := assign(f, 0, group, shardOfEarlier); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("take group %s out of that: %w", nameOf(group), err)
		}
	}
	err = ioctl(f, iocQgroupCreate, &qgroupCreate{create: 0, id: shardOfEarlier})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove its quota group: %w", err)
	}
	return nil
}

// enterShard has the group of a limited subvolume in its shard, too. One that is gone meanwhile is in none.
func enterShard(f *os.File, group uint64) error {
	sub := Subvolume{ID: group &^ (level << 48)}
	if already, err := isLimitedTogether(f, sub); already || err != nil {
		return err
	}
	if err := joinShard(f, sub); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// standAlone takes the group of an earlier version out of that of all, where one version had it, with the
// limit that it had there: what would count for the top in two ways would be wrong there ever after.
func standAlone(f *os.File, fs Info) error {
	if limit := maxReferenced(fs, nameOf(together)); limit >= 0 {
		if err := limitGroup(f, shardOfEarlier, limit); err != nil {
			return err
		}
	}
	err := assign(f, 0, shardOfEarlier, together)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("take group %s out of that of all: %w", nameOf(shardOfEarlier), err)
	}
	return nil
}

// LimitTogether lets all subvolumes that are limited together hold at most so many bytes; -1: as many as each
// of them may. If there are none it does nothing.
func LimitTogether(f *os.File, fs Info, bytes int64) error {
	if err := limitGroup(f, together, bytes); err != nil {
		return err
	}
	if earlier, err := hasEarlier(fs); err != nil || !earlier {
		return err
	}
	return limitGroup(f, shardOfEarlier, bytes)
}

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
	// While there is the group of an earlier version, the one that has more has all of them.
	group := uint64(together)
	used, err = usageIfThere(fs, together)
	if err != nil {
		return 0, -1, err
	}
	earlier, err := usageIfThere(fs, shardOfEarlier)
	if err != nil {
		return 0, -1, err
	}
	if earlier >= used {
		used, group = earlier, shardOfEarlier
	}
	return max(used, 0), maxReferenced(fs, nameOf(group)), nil
}

// usageIfThere returns what is charged to a group; -1: there is no such group.
func usageIfThere(fs Info, group uint64) (int64, error) {
	used, err := referenced(fs, nameOf(group))
	if errors.Is(err, os.ErrNotExist) {
		return -1, nil
	}
	return used, err
}

// nameOf is the name of a group in sysfs(5).
func nameOf(group uint64) string { return fmt.Sprintf("%d_%d", group>>48, group&(1<<48-1)) }

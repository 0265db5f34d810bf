package btrfs

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A limit on a subvolume's own group, 0/ID, would not hold: anybody who may write in a subvolume may make
// another one in it, without any privilege, and that one has a group of its own. So each limited subvolume
// has a group above, level/ID, and all that are in it are its members. A simple quota puts new ones into the
// group by itself, unless their maker asks for other groups; qgroups do not. Enforce does it for both.
//
// The file that the functions here take must be outside of limited subvolumes: the kernel refuses changes of
// groups with EDQUOT when they are made from within a full one.

// level is that of the groups made here. People who use groups on a disk of their own use low levels.
const level = 29

func groupOf(id uint64) uint64 { return level<<48 | id }

// Limit lets the subvolume sub, with all subvolumes in it, hold at most so many bytes. Writes beyond fail
// with EDQUOT.
func Limit(f *os.File, sub Subvolume, bytes int64) error {
	group := groupOf(sub.ID)
	err := ioctl(f, iocQgroupCreate, &qgroupCreate{create: 1, id: group})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make the quota group of subvolume %d of %s: %w", sub.ID, f.Name(), err)
	}

	if err := Enforce(f, sub); err != nil {
		return err
	}

	arg := qgroupLimit{id: group, flags: limitMaxReferenced, maxReferenced: uint64(bytes)}
	if err := ioctl(f, iocQgroupLimit, &arg); err != nil {
		return fmt.Errorf("limit subvolume %d of %s to %d bytes: %w", sub.ID, f.Name(), bytes, err)
	}

	return nil
}

// LiftOwn takes away the limit that the subvolume sub itself had before it was limited by a group.
func LiftOwn(f *os.File, sub Subvolume) error {
	arg := qgroupLimit{id: sub.ID, flags: limitMaxReferenced, maxReferenced: noLimit}
	if err := ioctl(f, iocQgroupLimit, &arg); err != nil {
		return fmt.Errorf("lift the old limit of subvolume %d of %s: %w", sub.ID, f.Name(), err)
	}
	return nil
}

// Enforce charges the limited subvolume sub, and all that were made in it since, to its group and to no other
// group of this package. Where nothing is wrong it only reads.
func Enforce(f *os.File, sub Subvolume) error {
	nested, err := descendants(f, sub.ID)
	if err != nil {
		return err
	}
	for _, id := range append([]uint64{sub.ID}, nested...) {
		if err := charge(f, id, groupOf(sub.ID)); err != nil {
			return err
		}
	}
	return nil
}

// charge makes a subvolume a member of a group, and of no other group of this package.
func charge(f *os.File, id, group uint64) error {
	groups, err := search(f, quotaTree, id, qgroupRelation)
	if err != nil {
		return err
	}

	if !slices.Contains(groups, group) {
		if err := assign(f, 1, id, group); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("charge subvolume %d of %s to group %d: %w",
				id, f.Name(), group&^(level<<48), err)
		}
	}

	for _, other := range groups {
		if other == group || other>>48 != level {
			continue
		}

		if err := assign(f, 0, id, other); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("take subvolume %d of %s out of group %d: %w",
				id, f.Name(), other&^(level<<48), err)
		}
	}

	return nil
}

func assign(f *os.File, on, member, group uint64) error {
	return ioctl(f, iocQgroupAssign, &qgroupAssign{assign: on, member: member, group: group})
}

// dissolve removes the group of a subvolume. Members of dead subvolumes are among those that it frees.
func dissolve(f *os.File, sub Subvolume) error {
	group := groupOf(sub.ID)
	members, err := search(f, quotaTree, group, qgroupRelation)
	if err != nil {
		return err
	}

	for _, member := range members {
		if member>>48 > level {
			// The kernel takes a group that is removed out of those above.
			continue
		}
		if err := assign(f, 0, member, group); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("take subvolume %d of %s out of group %d: %w", member, f.Name(), sub.ID, err)
		}

		if member != sub.ID {
			// It was deleted before.
			dropOwnGroup(f, member)
		}
	}

	// ENOTCONN says that quotas are off.
	err = ioctl(f, iocQgroupCreate, &qgroupCreate{create: 0, id: group})
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTCONN) {
		return fmt.Errorf("remove the quota group of subvolume %d of %s: %w", sub.ID, f.Name(), err)
	}

	return nil
}

func groupsPath(fs Info) string { return "/sys/fs/btrfs/" + fs.UUID + "/qgroups" }

// Usage returns how many bytes are charged to a limited subvolume, as accounted at this moment (the quota
// tree on disk lags by a transaction).
func Usage(fs Info, sub Subvolume) (int64, error) {
	return referenced(fs, nameOf(groupOf(sub.ID)))
}

func referenced(fs Info, group string) (int64, error) {
	data, err := os.ReadFile(groupsPath(fs) + "/" + group + "/referenced")
	if errors.Is(err, unix.ENODEV) {
		// The group went while the file was open.
		return 0, fmt.Errorf("quota group %s: %w", group, os.ErrNotExist)
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
}

// Held returns how many bytes are charged to subvolumes that are gone: a simple quota charges what was copied
// by reflink to the first owner only, and as long as a copy lives, that is so after the owner's end, too.
// What the kernel has yet to free of a dead subvolume is not counted.
func Held(f *os.File, fs Info) (int64, error) {
	owners, err := deadOwners(f)
	if err != nil {
		return 0, fmt.Errorf("search the quota groups of the btrfs of %s: %w", f.Name(), err)
	}

	var sum int64
	for _, id := range owners {
		// The kernel drops empty groups meanwhile.
		bytes, err := referenced(fs, nameOf(id))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}

		sum += bytes
	}

	return sum, nil
}

// deadOwners returns the groups of dead subvolumes whose bytes count for no living one: as a member of a
// living one's group they do.
func deadOwners(f *os.File) ([]uint64, error) {
	var groups []uint64
	charged := map[uint64]bool{}
	err := scan(f, quotaTree, itemKey{0, 0, qgroupInfoKey}, func(key itemKey, _ []byte) {
		switch {
		case key.kind == qgroupInfoKey && key.offset>>48 == 0 && key.offset >= firstFree:
			groups = append(groups, key.offset)
		case key.kind == qgroupRelation && key.object>>48 == 0:
			charged[key.object] = true
		}
	})
	if err != nil {
		return nil, err
	}

	var dead []uint64
	for _, id := range groups {
		if charged[id] {
			continue
		}
		there, err := search(f, rootTree, id, rootItem)
		if err != nil {
			return nil, err
		}
		if len(there) == 0 {
			dead = append(dead, id)
		}
	}
	return dead, nil
}

// IsFreed reports whether the kernel has freed all that a deleted subvolume had.
func IsFreed(f *os.File, sub Subvolume) (bool, error) {
	items, err := search(f, rootTree, sub.ID, rootItem)
	return err == nil && len(items) == 0, err
}

// Leftover returns the groups of limited subvolumes, "LEVEL/ID", that are there although their subvolumes are
// not.
func Leftover(f *os.File) ([]string, error) {
	ids, err := leftover(f)
	var left []string
	for _, id := range ids {
		left = append(left, fmt.Sprintf("%d/%d", level, id))
	}
	return left, err
}

// RemoveLeftover removes those groups. Where there are none it only reads. A group stays while a subvolume
// that is not freed counts for it.
func RemoveLeftover(f *os.File) error {
	ids, err := leftover(f)
	errs := []error{err}
	for _, id := range ids {
		members, err := search(f, quotaTree, groupOf(id), qgroupRelation)
		if err != nil {
			return err
		}
		alive := slices.ContainsFunc(members, func(member uint64) bool {
			freed, err := IsFreed(f, Subvolume{ID: member})
			return member>>48 == 0 && (!freed || err != nil)
		})
		if !alive {
			errs = append(errs, dissolve(f, Subvolume{ID: id}))
		}
	}
	return errors.Join(errs...)
}

// leftover returns the subvolumes of those groups. There may be thousands of both, and none that is left: two
// range searches have all of them.
func leftover(f *os.File) ([]uint64, error) {
	// The groups first: a subvolume is there before its group.
	var limited []uint64
	err := scan(f, quotaTree, itemKey{0, 0, qgroupInfoKey}, func(key itemKey, _ []byte) {
		if key.kind == qgroupInfoKey && key.offset>>48 == level {
			limited = append(limited, key.offset&^(level<<48))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("search the quota groups of the btrfs of %s: %w", f.Name(), err)
	}

	there := map[uint64]bool{}
	err = scan(f, rootTree, itemKey{firstFree, 0, rootItem}, func(key itemKey, _ []byte) {
		if key.kind == rootItem {
			there[key.object] = true
		}
	})
	if err != nil {
		return nil, fmt.Errorf("search for the subvolumes of the btrfs of %s: %w", f.Name(), err)
	}
	return slices.DeleteFunc(limited, func(id uint64) bool { return there[id] }), nil
}

// Errors returns how many errors of its device a file system has counted, by kind, since it was made.
func Errors(fs Info) (map[string]int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/sys/fs/btrfs/%s/devinfo/%d/error_stats", fs.UUID, onlyDevice))
	if err != nil {
		return nil, err
	}

	counts := map[string]int64{}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) != 2 {
			continue
		}
		if n, err := strconv.ParseInt(fields[1], 10, 64); err == nil && n > 0 {
			counts[fields[0]] = n
		}
	}
	return counts, nil
}

// LimitOf returns how many bytes a subvolume may hold by Limit; -1 if it has no limit.
func LimitOf(fs Info, sub Subvolume) int64 {
	return maxReferenced(fs, nameOf(groupOf(sub.ID)))
}

// OwnLimit reports whether a subvolume has a limit of its own, beside that of its group.
func OwnLimit(fs Info, sub Subvolume) bool {
	return maxReferenced(fs, nameOf(sub.ID)) >= 0
}

func maxReferenced(fs Info, group string) int64 {
	dir := groupsPath(fs) + "/" + group + "/"
	flags, err := os.ReadFile(dir + "limit_flags")
	if err != nil {
		return -1
	}

	set, err := strconv.ParseUint(strings.TrimSpace(string(flags)), 0, 64)
	if err != nil || set&limitMaxReferenced == 0 {
		return -1
	}

	data, err := os.ReadFile(dir + "max_referenced")
	if err != nil {
		return -1
	}

	bytes, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil || bytes > math.MaxInt64 {
		// NoLimit, or no number.
		return -1
	}

	return int64(bytes)
}

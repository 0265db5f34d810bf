package btrfs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/internal/testenv"
)

// What is limited together holds no more than that, in whichever shards it is.
func TestManyHoldWhatTheyMayTogether(t *testing.T) {
	root := fresh(t)
	all, subs := severalLimited(t, root, 4)
	for _, sub := range subs {
		if err := btrfs.LimitedTogether(root, stat(t, root), sub); err != nil {
			t.Fatal(err)
		}
	}
	_, beside := limited(t, root, "beside")
	if err := btrfs.LimitTogether(root, stat(t, root), limit); err != nil {
		t.Fatal(err)
	}

	checkTogether(t, root, all)
	if err := btrfs.LimitTogether(root, stat(t, root), -1); err != nil {
		t.Fatal(err)
	}
	if n, err := write(t, all[0], "again", limit/4); err != nil {
		t.Errorf("wrote %d bytes without a limit: %v", n, err)
	}
	if used, err := btrfs.Usage(stat(t, root), beside); err != nil || used >= limit/2 {
		t.Errorf("the one beside them is charged for %d bytes, %v", used, err)
	}
}

func severalLimited(t *testing.T, root *os.File, count int) (all []*os.File, subs []btrfs.Subvolume) {
	t.Helper()
	for i := range count {
		f, sub := limited(t, root, fmt.Sprint("v", i))
		all, subs = append(all, f), append(subs, sub)
	}
	return all, subs
}

// checkTogether writes to each until the limit of all is reached.
func checkTogether(t *testing.T, root *os.File, all []*os.File) {
	t.Helper()
	checkLimit(t, root, all, 0)
}

// checkLimit is checkTogether when some bytes were written before.
func checkLimit(t *testing.T, root *os.File, all []*os.File, sum int) {
	t.Helper()
	var last error
	for _, f := range all {
		n, err := write(t, f, "f", limit/2)
		sum += n
		last = err
	}

	if !errors.Is(last, unix.EDQUOT) || sum > limit || sum < limit/2 {
		t.Errorf("wrote %d bytes, the limit of all is %d: %v", sum, limit, last)
	}
	if err := btrfs.Sync(root); err != nil {
		t.Fatal(err)
	}
	used, have, err := btrfs.UsageTogether(stat(t, root))
	if err != nil || have != limit || used < int64(sum) || used > limit {
		t.Errorf("usage %d of %d, %v", used, have, err)
	}
}

// earlier is the group in which an earlier version had all that it limited together.
const earlier = 30<<48 | 1

// limitedEarlier limits subvolumes together as that version did.
func limitedEarlier(t *testing.T, root *os.File, subs ...btrfs.Subvolume) {
	t.Helper()
	group := [2]uint64{1, earlier}
	ioctl(t, root, 1<<30|16<<16|0x94<<8|42, unsafe.Pointer(&group))
	for _, sub := range subs {
		member := [3]uint64{1, 29<<48 | sub.ID, earlier}
		ioctl(t, root, 1<<30|24<<16|0x94<<8|41, unsafe.Pointer(&member))
	}
	lowest := [6]uint64{earlier, 1, limit}
	ioctl(t, root, 2<<30|48<<16|0x94<<8|43, unsafe.Pointer(&lowest))
}

func TestWhatWasTogetherIsTogetherWithOthers(t *testing.T) {
	root := fresh(t)
	old, oldSub := limited(t, root, "old")
	limitedEarlier(t, root, oldSub)
	keepTogether(t, root, old, limit/8)

	state, err := btrfs.Look(root, stat(t, root), oldSub)
	if err != nil || !state.Together {
		t.Errorf("%+v, %v: it is not limited together", state, err)
	}
	fresh, sub := limited(t, root, "fresh")
	if err := btrfs.LimitedTogether(root, stat(t, root), sub); err != nil {
		t.Fatal(err)
	}

	checkLimit(t, root, []*os.File{old, fresh}, limit/8)
	if err := btrfs.LimitTogether(root, stat(t, root), -1); err != nil {
		t.Fatal(err)
	}
	if n, err := write(t, old, "again", limit/4); err != nil {
		t.Errorf("wrote %d bytes: the limit of the earlier version is still there: %v", n, err)
	}
}

// An earlier version that runs again has those in its group that are in shards by now.
func TestWhatIsTogetherTwiceCountsOnce(t *testing.T) {
	root := fresh(t)
	both, sub := limited(t, root, "both")
	if err := btrfs.LimitedTogether(root, stat(t, root), sub); err != nil {
		t.Fatal(err)
	}
	limitedEarlier(t, root, sub)
	keepTogether(t, root, both, limit/8)
}

// For a while the group of the earlier version was one of those that count for all.
func TestGroupOfAnEarlierVersionThatCountsForAllGoes(t *testing.T) {
	root := fresh(t)
	_, sub := limited(t, root, "other")
	if err := btrfs.LimitedTogether(root, stat(t, root), sub); err != nil {
		t.Fatal(err)
	}
	old, oldSub := limited(t, root, "old")
	limitedEarlier(t, root, oldSub)
	member := [3]uint64{1, earlier, 31<<48 | 1}
	ioctl(t, root, 1<<30|24<<16|0x94<<8|41, unsafe.Pointer(&member))
	keepTogether(t, root, old, limit/8)
}

// keepTogether writes to a subvolume and has it limited with others: what was written before counts once.
func keepTogether(t *testing.T, root, f *os.File, bytes int) {
	t.Helper()
	if _, err := write(t, f, "before", bytes); err != nil {
		t.Fatal(err)
	}
	if err := btrfs.Sync(root); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := btrfs.KeepTogether(root, stat(t, root)); err != nil {
			t.Fatal(err)
		}
	}

	used, have, err := btrfs.UsageTogether(stat(t, root))
	if err != nil || have != limit || used < int64(bytes) || used > int64(bytes+bytes/4) {
		t.Errorf("usage %d of %d, %v: %d bytes were written before", used, have, err, bytes)
	}
	checkNoEarlier(t, root)
}

func checkNoEarlier(t *testing.T, root *os.File) {
	t.Helper()
	group := "/sys/fs/btrfs/" + stat(t, root).UUID + "/qgroups/30_1"
	if _, err := os.Stat(group); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the group of the earlier version: %v", err)
	}
}

// On a full disk groups cannot be changed, from some moment on. Whichever that is, nobody may hold more
// meanwhile, and the next attempt goes on from there.
func TestLimitOfAnEarlierVersionHoldsWhereverItsGroupIsLeft(t *testing.T) {
	for from, whole := 0, false; !whole && !t.Failed(); from++ {
		t.Run(fmt.Sprint(from), func(t *testing.T) {
			root := fresh(t)
			all, subs := severalLimited(t, root, 3)
			limitedEarlier(t, root, subs...)
			whole = keepInPart(t, root, from)

			later, sub := limited(t, root, "later")
			if err := errors.Join(
				btrfs.LimitedTogether(root, stat(t, root), sub),
				btrfs.LimitTogether(root, stat(t, root), 2*limit),
				btrfs.LimitTogether(root, stat(t, root), limit),
			); err != nil {
				t.Fatal(err)
			}
			all = append(all, later)
			checkTogether(t, root, all)

			if err := btrfs.KeepTogether(root, stat(t, root)); err != nil {
				t.Fatal(err)
			}
			checkNoEarlier(t, root)
			for _, f := range all {
				if err := os.RemoveAll(filepath.Join(f.Name(), "f")); err != nil {
					t.Fatal(err)
				}
			}
			if err := btrfs.Sync(root); err != nil {
				t.Fatal(err)
			}
			checkTogether(t, root, all)
		})
	}
}

// keepInPart is KeepTogether that may change so many things. It reports whether that was enough.
func keepInPart(t *testing.T, root *os.File, changes int) (whole bool) {
	t.Helper()
	faults := testenv.IoctlFaults{Requests: groupChanges, From: changes, Errno: unix.ENOSPC}
	err := faults.Run(t, func() error { return btrfs.KeepTogether(root, stat(t, root)) })
	if err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return err == nil
}

// groupChanges are the ioctls that change quota groups: assign, create, limit.
var groupChanges = []uint32{
	1<<30 | 24<<16 | 0x94<<8 | 41,
	1<<30 | 16<<16 | 0x94<<8 | 42,
	2<<30 | 48<<16 | 0x94<<8 | 43,
}

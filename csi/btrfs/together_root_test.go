package btrfs_test

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
)

// What is limited together holds no more than that, in whichever shards it is.
func TestManyHoldWhatTheyMayTogether(t *testing.T) {
	root := fresh(t)
	var all []*os.File
	for i := range 4 {
		f, sub := limited(t, root, fmt.Sprint("v", i))
		if err := btrfs.LimitedTogether(root, sub); err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
	}
	_, beside := limited(t, root, "beside")
	if err := btrfs.LimitTogether(root, limit); err != nil {
		t.Fatal(err)
	}

	checkTogether(t, root, all)
	if err := btrfs.LimitTogether(root, -1); err != nil {
		t.Fatal(err)
	}
	if n, err := write(t, all[0], "again", limit/4); err != nil {
		t.Errorf("wrote %d bytes without a limit: %v", n, err)
	}
	if used, err := btrfs.Usage(stat(t, root), beside); err != nil || used >= limit/2 {
		t.Errorf("the one beside them is charged for %d bytes, %v", used, err)
	}
}

// checkTogether writes to each until the limit of all is reached.
func checkTogether(t *testing.T, root *os.File, all []*os.File) {
	t.Helper()
	var sum int
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

// An earlier version had all in one group, 30/1, and the limit there.
func TestWhatWasTogetherIsTogetherWithOthers(t *testing.T) {
	root := fresh(t)
	old, oldSub := limited(t, root, "old")
	const earlier = 30<<48 | 1
	group := [2]uint64{1, earlier}
	ioctl(t, root, 1<<30|16<<16|0x94<<8|42, unsafe.Pointer(&group))
	member := [3]uint64{1, 29<<48 | oldSub.ID, earlier}
	ioctl(t, root, 1<<30|24<<16|0x94<<8|41, unsafe.Pointer(&member))
	lowest := [6]uint64{earlier, 1, limit}
	ioctl(t, root, 2<<30|48<<16|0x94<<8|43, unsafe.Pointer(&lowest))

	for range 2 {
		if err := btrfs.KeepTogether(root, stat(t, root)); err != nil {
			t.Fatal(err)
		}
	}
	state, err := btrfs.Look(root, stat(t, root), oldSub)
	if err != nil || !state.Together {
		t.Errorf("%+v, %v: it is not limited together", state, err)
	}

	fresh, sub := limited(t, root, "fresh")
	if err := btrfs.LimitedTogether(root, sub); err != nil {
		t.Fatal(err)
	}
	checkTogether(t, root, []*os.File{old, fresh})
	if err := btrfs.LimitTogether(root, -1); err != nil {
		t.Fatal(err)
	}
	if n, err := write(t, old, "again", limit/4); err != nil {
		t.Errorf("wrote %d bytes: the limit of the earlier version is still there: %v", n, err)
	}
}

package btrfspool_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/testenv"
)

// The ioctls that change quota groups.
const (
	groupAssign = 1<<30 | 24<<16 | 0x94<<8 | 41
	groupCreate = 1<<30 | 16<<16 | 0x94<<8 | 42
	groupLimit  = 2<<30 | 48<<16 | 0x94<<8 | 43
)

func change[T any](t *testing.T, dir *os.File, request uintptr, arg T) {
	t.Helper()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), request, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		t.Fatal(errno)
	}
}

// limitEarlier has volumes that are not reserved for limited together as an earlier version did, with a limit
// that is none.
func limitEarlier(t *testing.T, dir *os.File, ids ...string) {
	t.Helper()
	const earlier, shards = 30<<48 | 1, 30<<48 | 2
	change(t, dir, groupCreate, [2]uint64{1, earlier})
	change(t, dir, groupLimit, [6]uint64{earlier, 1, 1 << 40})
	for _, id := range ids {
		root, err := btrfs.Open(dir, id)
		if err != nil {
			t.Fatal(err)
		}
		sub, err := btrfs.Inspect(root)
		if err := errors.Join(err, root.Close()); err != nil {
			t.Fatal(err)
		}
		group := 29<<48 | sub.ID
		change(t, dir, groupAssign, [3]uint64{1, group, earlier})
		change(t, dir, groupAssign, [3]uint64{0, group, shards + sub.ID%256})
	}
}

// While groups cannot be changed nothing more is reserved, which Check says; what is reserved can be written.
func TestLimitOfAnEarlierVersionThatIsLeftHalfway(t *testing.T) {
	d := dir(t)
	p := open(t, d, "half-"+filepath.Base(d), 640<<20)
	defer closePool(t, p, true)
	defer keeping(t, p)()

	reserved := reservedSpec("vol-1", 128<<20)
	mustCreate(t, p, reserved)
	for _, id := range []string{"vol-2", "vol-3"} {
		mustCreate(t, p, plainSpec(id, 1<<30))
	}
	volumes, err := os.Open(filepath.Join(d, "pool", "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	defer volumes.Close()

	for from := 0; !reserveMore(t, p, volumes, from) && !t.Failed(); from++ {
		if from == 1 {
			// One of the others is in its shard by now.
			fill(t, filepath.Join(volumes.Name(), "vol-2"), filepath.Join(volumes.Name(), "vol-3"))
			overwrite(t, filepath.Join(volumes.Name(), reserved.ID, "data"), reserved.Size)
		}
		if err := p.Check(false); err != nil {
			t.Errorf("%d changes, and later all that are left: %v", from, err)
		}
	}
}

// reserveMore has more reserved beside what an earlier version has limited, while so many things can be
// changed. It reports whether that was enough for its group.
func reserveMore(t *testing.T, p *btrfspool.Pool, dir *os.File, changes int) (enough bool) {
	t.Helper()
	limitEarlier(t, dir, "vol-2", "vol-3")
	faults := testenv.IoctlFaults{
		Requests: []uint32{groupAssign, groupCreate, groupLimit},
		From:     changes,
		Errno:    unix.ENOSPC,
	}
	reserved := faults.Run(t, func() error { return p.Grow(reservedSpec("vol-1", 129<<20)) })

	info, err := btrfs.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = os.Stat("/sys/fs/btrfs/" + info.UUID + "/qgroups/30_1")
	if errors.Is(err, os.ErrNotExist) {
		return true
	}

	if !errors.Is(reserved, volume.ErrUnavailable) {
		t.Errorf("%d changes: reserved more: %v", changes, reserved)
	}
	faults.From = 0
	if err := faults.Run(t, func() error { return p.Check(false) }); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%d changes: Check: %v", changes, err)
	}
	return false
}

// fill writes to the directories in turns until there is room in none of them.
func fill(t *testing.T, dirs ...string) {
	t.Helper()
	chunk := make([]byte, 1<<20)
	for full := false; !full; {
		full = true
		for _, dir := range dirs {
			f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.Write(chunk)
			if err == nil {
				full = false
			} else if !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
				t.Error(err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

package changedblocks_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/changedblocks"
	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/volume"
)

const block = 4096

type ranges = []changedblocks.Range

// node is a node whose snapshots are looked at.
type node struct {
	*nodetest.Node
	t       testing.TB
	random  *rand.Rand
	names   int
	tracker *changedblocks.Tracker
}

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{
		Node:   nodetest.New(t, 8<<30),
		t:      t,
		random: rand.New(rand.NewPCG(1, 2)),
	}
	n.tracker = changedblocks.New(n.Store, n.Pool())
	return n
}

func (n *node) snapshot(v volume.Volume) volume.Volume {
	n.t.Helper()
	n.names++
	name := n.t.Name() + strconv.Itoa(n.names)
	return n.MustCreate(volume.Request{Name: name, Source: v.ID, Snapshot: true})
}

// file opens what has the blocks of a volume or snapshot.
func (n *node) file(v volume.Volume) *os.File {
	n.t.Helper()
	f, err := os.Open(filepath.Join(n.Dir, "pool", "volumes", v.ID, "image"))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { f.Close() })
	return f
}

// collect gathers what each is called with, and fails the test where that is out of order.
func collect(t testing.TB, call func(changedblocks.Each) error) (size int64, all ranges) {
	t.Helper()
	called := false
	err := call(func(of int64, some ranges) error {
		if called && of != size {
			t.Errorf("the volume had %d bytes, and has %d", size, of)
		}
		size, called = of, true
		all = append(all, some...)
		return nil
	})
	if err != nil || !called {
		t.Fatal(err, called)
	}

	end := int64(0)
	for _, r := range all {
		if r.Offset < end || r.Size <= 0 || r.Offset+r.Size > size {
			t.Fatalf("range %v after %d, of %d bytes", r, end, size)
		}
		end = r.Offset + r.Size
	}
	return size, all
}

func (n *node) changed(base, target volume.Volume, from int64) (size int64, all ranges) {
	n.t.Helper()
	return collect(n.t, func(each changedblocks.Each) error {
		return n.tracker.Changed(n.t.Context(), base.ID, target.ID, from, each)
	})
}

func (n *node) allocated(v volume.Volume, from int64) (size int64, all ranges) {
	n.t.Helper()
	return collect(n.t, func(each changedblocks.Each) error {
		return n.tracker.Allocated(n.t.Context(), v.ID, from, each)
	})
}

// differing returns the numbers of the blocks in which target is not as base, which is all zeroes if it is
// nil.
func differing(t testing.TB, base, target *os.File) []int64 {
	t.Helper()
	var differ []int64
	was, is := make([]byte, 256*block), make([]byte, 256*block)
	for offset := int64(0); ; offset += int64(len(is)) {
		count, _ := target.ReadAt(is, offset)
		if count == 0 {
			return differ
		}

		clear(was)
		if base != nil {
			_, _ = base.ReadAt(was, offset)
		}
		for at := 0; at < count; at += block {
			if !bytes.Equal(was[at:at+block], is[at:at+block]) {
				differ = append(differ, (offset+int64(at))/block)
			}
		}
	}
}

// check fails the test if a block that differs is in none of the ranges, and returns how many blocks are
// reported although they do not differ.
func check(t testing.TB, differ []int64, reported ranges) (needless int) {
	t.Helper()
	total := 0
	for _, r := range reported {
		total += int(r.Size / block)
	}

	left := reported
	missed := 0
	for _, number := range differ {
		offset := number * block
		for len(left) > 0 && left[0].Offset+left[0].Size <= offset {
			left = left[1:]
		}
		if len(left) == 0 || left[0].Offset > offset {
			missed++
		}
	}
	if missed > 0 {
		t.Errorf("%d of %d blocks that differ are not reported", missed, len(differ))
	}
	return total - len(differ)
}

// checkSnapshots compares each snapshot with each earlier one, and with what is allocated in it.
func (n *node) checkSnapshots(snapshots []volume.Volume, mostNeedless int) {
	n.t.Helper()
	for i, target := range snapshots {
		is := n.file(target)
		_, written := n.allocated(target, 0)
		check(n.t, differing(n.t, nil, is), written)

		for _, base := range snapshots[:i] {
			_, reported := n.changed(base, target, 0)
			needless := check(n.t, differing(n.t, n.file(base), is), reported)
			if needless > mostNeedless {
				n.t.Errorf("%s to %s: %d blocks are reported that do not differ", base.ID, target.ID, needless)
			}
		}
	}
}

// scribble writes to a file or device: at random places, some of it as it was, and makes zeroes of others.
func (n *node) scribble(path string, size int64, writes int) {
	n.t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()

	data := make([]byte, 16*block)
	for range writes {
		length := block * (1 + n.random.Int64N(16))
		offset := block * n.random.Int64N((size-length)/block)
		part := data[:length]
		switch n.random.IntN(10) {
		case 0:
			err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
		case 1:
			_, _ = f.ReadAt(part, offset)
			_, err = f.WriteAt(part, offset)
		default:
			for i := range part {
				part[i] = byte(n.random.Uint32())
			}
			_, err = f.WriteAt(part, offset)
		}
		if err != nil {
			n.t.Fatal(err)
		}
	}

	if err := f.Sync(); err != nil {
		n.t.Fatal(err)
	}
}

// What is reported is compared with what is there, for all kinds of volumes that have blocks.
func TestWhatChangedIsReported(t *testing.T) {
	n := newNode(t)
	for _, r := range []volume.Request{
		{Name: "raw", Access: volume.Block},
		{Name: "xfs", FSType: "xfs"},
		{Name: "ext4", FSType: "ext4"},
	} {
		t.Run(r.Name, func(t *testing.T) {
			const size = 320 << 20
			n := &node{
				Node:    n.Node,
				t:       t,
				random:  n.random,
				tracker: n.tracker,
			}
			r.Required, r.Backend = size, "btrfs"
			v := n.MustCreate(r)
			path := n.Use(v, "pod")
			if v.Access == volume.Filesystem {
				path = filepath.Join(path, "data")
			}

			snapshots := []volume.Volume{n.snapshot(v)}
			for range 4 {
				n.scribble(path, size/2, 300)
				snapshots = append(snapshots, n.snapshot(v))
			}
			snapshots = append(snapshots, n.snapshot(v))

			// What is written with what was there is reported; file systems also write more than they change.
			n.checkSnapshots(snapshots, 5000)
			if _, reported := n.changed(snapshots[4], snapshots[5], 0); v.Access == volume.Block && reported != nil {
				t.Errorf("nothing was written, and %v is reported", reported)
			}
			n.Remove(v.ID, "pod")
		})
	}
}

// A volume is larger than it was: what it has beyond counts as zeroes before.
func TestGrownVolume(t *testing.T) {
	n := newNode(t)
	v := n.MustCreate(volume.Request{Name: "v", Required: 16 << 20, Backend: "btrfs", Access: volume.Block})
	path := n.Use(v, "pod")
	n.scribble(path, 16<<20, 100)
	before := n.snapshot(v)

	if _, err := n.Grow(t.Context(), v.ID, 64<<20, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := n.GrowStaged(t.Context(), v.ID); err != nil {
		t.Fatal(err)
	}
	n.scribble(path, 64<<20, 100)
	after := n.snapshot(v)

	n.checkSnapshots([]volume.Volume{before, after}, 1000)
	if size, _ := n.changed(before, after, 0); size != 64<<20 {
		t.Errorf("the volume has %d bytes", size)
	}
	n.Remove(v.ID, "pod")
}

// Who was interrupted goes on where they were, also after the driver was killed.
func TestChangesFromAnOffsetOn(t *testing.T) {
	n := newNode(t)
	const size = 256 << 20
	v := n.MustCreate(volume.Request{Name: "v", Required: size, Backend: "btrfs", Access: volume.Block})
	path := n.Use(v, "pod")
	n.scribble(path, size, 3000)
	before := n.snapshot(v)
	n.scribble(path, size, 3000)
	after := n.snapshot(v)

	_, all := n.changed(before, after, 0)
	_, written := n.allocated(after, 0)
	n.Kill()
	n.Start()
	n.tracker = changedblocks.New(n.Store, n.Pool())

	for range 20 {
		from := n.random.Int64N(size)
		if _, rest := n.changed(before, after, from); !slices.Equal(merged(rest), merged(behind(all, from))) {
			t.Errorf("from %d on: %v, and from 0 on %v", from, rest, all)
		}
		if _, rest := n.allocated(after, from); !slices.Equal(merged(rest), merged(behind(written, from))) {
			t.Errorf("allocated from %d on: %v, and from 0 on %v", from, rest, written)
		}
	}
	if _, rest := n.changed(before, after, size); rest != nil {
		t.Errorf("from the end on: %v", rest)
	}
	n.Remove(v.ID, "pod")
}

func behind(all ranges, from int64) (rest ranges) {
	for _, r := range all {
		if end := r.Offset + r.Size; end > from {
			begin := max(r.Offset, from)
			rest = append(rest, changedblocks.Range{Offset: begin, Size: end - begin})
		}
	}
	return rest
}

// merged has no two ranges side by side: pages end where they end.
func merged(all ranges) (out ranges) {
	for _, r := range all {
		if last := len(out) - 1; last >= 0 && out[last].Offset+out[last].Size == r.Offset {
			out[last].Size += r.Size
			continue
		}
		out = append(out, r)
	}
	return out
}

func TestWhatHasNoChangedBlocksIsRefused(t *testing.T) {
	n := newNode(t)
	make := func(name string, access volume.Access) (first, second volume.Volume) {
		v := n.MustCreate(volume.Request{Name: name, Required: 16 << 20, Backend: "btrfs", Access: access})
		return n.snapshot(v), n.snapshot(v)
	}
	first, second := make("a", volume.Block)
	other, _ := make("b", volume.Block)
	tree, laterTree := make("tree", volume.Filesystem)

	for _, c := range []struct {
		name, base, target string
		from               int64
		want               error
	}{
		{"no base", "snap-0", second.ID, 0, volume.ErrNotFound},
		{"no target", first.ID, "snap-0", 0, volume.ErrNotFound},
		{"not an ID", "../a", second.ID, 0, volume.ErrNotFound},
		{"a volume", first.Source, second.ID, 0, volume.ErrNotFound},
		{"another volume's", other.ID, second.ID, 0, volume.ErrInvalid},
		{"the later one first", second.ID, first.ID, 0, volume.ErrInvalid},
		{"itself", first.ID, first.ID, 0, volume.ErrInvalid},
		{"directories", tree.ID, laterTree.ID, 0, changedblocks.ErrNoBlocks},
		{"before the beginning", first.ID, second.ID, -1, volume.ErrSize},
		{"beyond the end", first.ID, second.ID, 16<<20 + 1, volume.ErrSize},
	} {
		err := n.tracker.Changed(t.Context(), c.base, c.target, c.from, func(int64, ranges) error {
			t.Errorf("%s: something is reported", c.name)
			return nil
		})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

// A snapshot can be deleted while it is looked at, and another one with its name is not looked at.
func TestDeletedSnapshotEndsTheWalk(t *testing.T) {
	n := newNode(t)
	const size = 256 << 20
	v := n.MustCreate(volume.Request{Name: "v", Required: size, Backend: "btrfs", Access: volume.Block})
	path := n.Use(v, "pod")
	base := n.snapshot(v)
	n.scribble(path, size, 3000)

	request := volume.Request{Name: "again", Source: v.ID, Snapshot: true}
	for _, again := range []bool{false, true} {
		target := n.MustCreate(request)
		pages := 0
		err := n.tracker.Changed(t.Context(), base.ID, target.ID, 0, func(int64, ranges) error {
			if pages++; pages == 1 {
				if err := n.Delete(t.Context(), target.ID); err != nil {
					t.Error(err)
				}
				if again {
					n.MustCreate(request)
				}
			}
			return nil
		})
		if !errors.Is(err, volume.ErrNotFound) || pages != 1 {
			t.Errorf("again %v: %v after %d pages", again, err, pages)
		}
	}

	target := n.snapshot(v)
	err := n.tracker.Changed(t.Context(), base.ID, target.ID, 0, func(int64, ranges) error { return errEnough })
	if !errors.Is(err, errEnough) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = n.tracker.Changed(ctx, base.ID, target.ID, 0, func(int64, ranges) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	n.Remove(v.ID, "pod")
}

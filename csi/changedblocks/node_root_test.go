package changedblocks_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/changedblocks"
	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/volume"
)

const (
	block     = 4096
	punchHole = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
)

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
	n.tracker = changedblocks.New(n.Store, n.Pool)
	t.Cleanup(n.clear)
	return n
}

// clear deletes what a test leaves: on a disk that is btrfs, nobody else can.
func (n *node) clear() {
	for _, v := range append(n.Snapshots("", "", 0), n.List("", 0)...) {
		if err := n.Delete(context.WithoutCancel(n.t.Context()), v.ID); err != nil {
			n.t.Error(err)
		}
	}
}

// raw makes a raw block volume and returns it with the path of its device.
func (n *node) raw(size int64) (v volume.Volume, path string) {
	n.t.Helper()
	v = n.MustCreate(volume.Request{
		Name:     "v",
		Required: size,
		Backend:  "btrfs",
		Access:   volume.Block,
	})
	return v, n.Use(v, "pod")
}

// two makes a raw block volume with a snapshot of what was written first, and one of what was written since.
func (n *node) two(size int64, writes int) (v, base, target volume.Volume) {
	n.t.Helper()
	v, path := n.raw(size)
	n.scribble(path, size, writes)
	base = n.snapshot(v)
	n.scribble(path, size, writes)
	return v, base, n.snapshot(v)
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

// checkSnapshots compares each snapshot with the one before and with the first, and with what is allocated in
// it.
func (n *node) checkSnapshots(snapshots []volume.Volume, mostNeedless int) {
	n.t.Helper()
	for i, target := range snapshots {
		is := n.file(target)
		_, written := n.allocated(target, 0)
		check(n.t, differing(n.t, nil, is), written)

		for b, base := range snapshots[:i] {
			if b != 0 && b != i-1 {
				continue
			}
			_, reported := n.changed(base, target, 0)
			needless := check(n.t, differing(n.t, n.file(base), is), reported)
			if needless > mostNeedless {
				n.t.Errorf("%s to %s: %d blocks do not differ and are reported", base.ID, target.ID, needless)
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
			err = unix.Fallocate(int(f.Fd()), punchHole, offset, length)
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

// discard makes zeroes of a part of a device.
func discard(t testing.TB, path string, offset, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(unix.Fallocate(int(f.Fd()), punchHole, offset, size), f.Sync()); err != nil {
		t.Fatal(err)
	}
}

package changedblocks_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/csi/changedblocks"
	"github.com/trivet-node/trivet/csi/volume"
)

// What is reported is compared with what is there, for all kinds of volumes that have blocks.
func TestWhatChangedIsReported(t *testing.T) {
	n := newNode(t)
	for _, r := range []volume.Request{
		{Name: "raw", Required: 64 << 20, Access: volume.Block},
		{Name: "xfs", Required: 320 << 20, FSType: "xfs"},
		{Name: "ext4", Required: 128 << 20, FSType: "ext4"},
	} {
		t.Run(r.Name, func(t *testing.T) {
			n := &node{
				Node:    n.Node,
				t:       t,
				random:  n.random,
				tracker: n.tracker,
			}
			r.Backend = "btrfs"
			v := n.MustCreate(r)
			path := n.Use(v, "pod")
			if v.Access == volume.Filesystem {
				path = filepath.Join(path, "data")
			}

			snapshots := []volume.Volume{n.snapshot(v)}
			for range 3 {
				n.scribble(path, r.Required/2, 300)
				snapshots = append(snapshots, n.snapshot(v))
			}
			snapshots = append(snapshots, n.snapshot(v))

			// What is written with what was there is reported; file systems also write more than they change.
			n.checkSnapshots(snapshots, 5000)
			_, reported := n.changed(snapshots[3], snapshots[4], 0)
			if v.Access == volume.Block && reported != nil {
				t.Errorf("nothing was written, and %v is reported", reported)
			}
			n.Remove(v.ID, "pod")
		})
	}
}

// A volume is larger than it was: what it has beyond counts as zeroes before.
func TestGrownVolume(t *testing.T) {
	n := newNode(t)
	v, path := n.raw(16 << 20)
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
	v, before, after := n.two(size, 3000)

	n.checkSnapshots([]volume.Volume{before, after}, 4000)
	_, all := n.changed(before, after, 0)
	_, written := n.allocated(after, 0)
	n.Kill()
	n.Start()
	n.tracker = changedblocks.New(n.Store, n.Pool)

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

// The base may be in more pieces than the target, so that less of it is looked at at a time.
func TestBaseInMorePieces(t *testing.T) {
	n := newNode(t)
	const size = 256 << 20
	v, path := n.raw(size)
	n.scribble(path, size, 5000)
	before := n.snapshot(v)

	half := make([]int, size>>20/2)
	for i := range half {
		half[i] = i
	}
	write(t, path, 1<<20, half)
	discard(t, path, size*3/4, size/8)
	after := n.snapshot(v)

	// Zeroes that were written, and then discarded, are reported.
	n.checkSnapshots([]volume.Volume{before, after}, 1000)
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
	two := func(name string, access volume.Access) (first, second volume.Volume) {
		v := n.MustCreate(volume.Request{
			Name:     name,
			Required: 16 << 20,
			Backend:  "btrfs",
			Access:   access,
		})
		return n.snapshot(v), n.snapshot(v)
	}
	first, second := two("a", volume.Block)
	other, _ := two("b", volume.Block)
	tree, laterTree := two("tree", volume.Filesystem)

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
	v, path := n.raw(size)
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
	enough := func(int64, ranges) error { return errEnough }
	err := n.tracker.Changed(t.Context(), base.ID, target.ID, 0, enough)
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

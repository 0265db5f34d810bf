// Package changedblocks finds the parts of a volume that differ between two of its snapshots, and those of a
// snapshot that were ever written. It reads none of them, and nobody has to keep track of writes: the image
// of a volume and those of its snapshots are files of one btrfs, which share the blocks that are the same. A
// block that both snapshots have in the same place of the disk at the same moment is the same; all others are
// reported, those that were written with what was there included.
//
// That holds because the base has its blocks as long as it exists, so that nothing else can be in their
// place: the kernel writes in place only what no snapshot has (ADR 0935). Only the kernel itself moves
// blocks, when the pool shrinks or is balanced, and it gives a place to others in a later transaction than
// the one in which it moved away what was there. So two lists of extents that were read while no transaction
// began are of one moment.
package changedblocks

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/volume"
)

// ErrNoBlocks is that of a snapshot that is a directory tree and not an image of a device.
var ErrNoBlocks = errors.New("there are no blocks")

const (
	endOfFile = math.MaxInt64

	// maxPages is how many pages are looked up at a time. Each takes some hundred kilobytes and a moment.
	maxPages = 2

	// attempts is how often a page is looked up until no transaction began meanwhile.
	attempts = 100
)

// Snapshots are those of the node. It is a volume.Store.
type Snapshots interface {
	Lock(ctx context.Context, id string) (unlock func(), err error)
	Snapshot(id string) (volume.Volume, error)
}

// Images are the files of volumes that have blocks, in a btrfs. It is a btrfspool.Pool.
type Images interface {
	IsImage(volume.Spec) bool
	OpenRaw(s volume.Spec, flags int) (*os.File, error)
}

// Tracker knows the blocks of snapshots. It is safe for concurrent use.
type Tracker struct {
	snapshots Snapshots
	images    Images
	pages     chan struct{} // has a value for each page that is being looked up
}

// New returns a Tracker.
func New(snapshots Snapshots, images Images) *Tracker {
	return &Tracker{
		snapshots: snapshots,
		images:    images,
		pages:     make(chan struct{}, maxPages),
	}
}

// Each is called with the size of the volume and its next parts, in ascending order, at least once. Between
// two calls nothing is held: neither the snapshots, which may be deleted then, nor memory, nor descriptors.
type Each func(size int64, ranges []Range) error

// Allocated calls each with the parts of a snapshot from an offset on that were written.
func (t *Tracker) Allocated(ctx context.Context, id string, from int64, each Each) error {
	image, err := t.inspect(ctx, id)
	if err != nil {
		return err
	}
	w := &walk{tracker: t, target: image, at: from}
	return w.run(ctx, each)
}

// Changed calls each with the parts of a snapshot, from an offset on, that may differ from those of an
// earlier one of the same volume. Where that ended before, it counts as zeroes.
func (t *Tracker) Changed(ctx context.Context, base, target string, from int64, each Each) error {
	was, err := t.inspect(ctx, base)
	if err != nil {
		return err
	}
	is, err := t.inspect(ctx, target)
	if err != nil {
		return err
	}

	switch {
	case was.source != is.source:
		return fmt.Errorf("%w: snapshot %s is of volume %s, and snapshot %s of volume %s",
			volume.ErrInvalid, base, was.source, target, is.source)
	case base == target || was.made > is.made:
		return fmt.Errorf("%w: the target, snapshot %s, was not made after the base, snapshot %s",
			volume.ErrInvalid, target, base)
	}

	w := &walk{
		tracker: t,
		base:    was,
		target:  is,
		at:      from,
	}
	return w.run(ctx, each)
}

// image is what has the blocks of a snapshot.
type image struct {
	id     string
	source string // the volume
	size   int64

	// tree is the number of its subvolume, and made that of the transaction in which it was made. No other
	// one ever has both.
	tree, made uint64

	// next is where in the file the extent begins that is looked at next.
	next int64
}

// inspect finds the image of a snapshot.
func (t *Tracker) inspect(ctx context.Context, id string) (*image, error) {
	i := &image{id: id}
	err := t.open(ctx, i, func(snapshot volume.Volume, f *os.File) error {
		sub, err := btrfs.Inspect(f)
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err != nil {
			return err
		}

		i.source = snapshot.Source
		i.tree = sub.ID
		i.made = sub.Created

		// A volume that was growing at that moment may have had the new size in its record alone.
		i.size = max(snapshot.Size, st.Size())
		return nil
	})
	return i, err
}

// open locks a snapshot, so that nobody deletes it, and calls use with its open file. Only one that exists is
// waited for: nobody who is making one is waited for by somebody who holds another.
func (t *Tracker) open(ctx context.Context, i *image, use func(volume.Volume, *os.File) error) error {
	if volume.CheckID(i.id) != nil {
		return fmt.Errorf("%w: snapshot %q", volume.ErrNotFound, i.id)
	}
	if _, err := t.snapshots.Snapshot(i.id); err != nil {
		return err
	}
	unlock, err := t.snapshots.Lock(ctx, i.id)
	if err != nil {
		return err
	}
	defer unlock()

	snapshot, err := t.snapshots.Snapshot(i.id)
	if err != nil {
		return err
	}
	if snapshot.Damage != nil {
		return fmt.Errorf("snapshot %s: %w", i.id, snapshot.Damage)
	}
	if !t.images.IsImage(snapshot.Spec) {
		return fmt.Errorf("%w in snapshot %s: its volume is a subvolume of the pool, neither a raw block"+
			" volume nor an image with a file system", ErrNoBlocks, i.id)
	}

	f, err := t.images.OpenRaw(snapshot.Spec, os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("open the blocks of snapshot %s: %w", i.id, err)
	}
	defer f.Close()

	return use(snapshot, f)
}

// openSame is open for the snapshot that was inspected.
func (t *Tracker) openSame(ctx context.Context, i *image, use func(*os.File) error) error {
	return t.open(ctx, i, func(_ volume.Volume, f *os.File) error {
		sub, err := btrfs.Inspect(f)
		if err == nil && (sub.ID != i.tree || sub.Created != i.made) {
			err = fmt.Errorf("%w: snapshot %s was deleted, and another one made with its name",
				volume.ErrNotFound, i.id)
		}
		if err != nil {
			return err
		}
		return use(f)
	})
}

// openBoth is openSame for two, of which the base may be nil. No two calls wait for each other: all of them
// lock in the order of IDs.
func (t *Tracker) openBoth(
	ctx context.Context,
	base, target *image,
	use func(base, target *os.File) error,
) error {
	if base == nil {
		return t.openSame(ctx, target, func(f *os.File) error { return use(nil, f) })
	}
	if base.id > target.id {
		return t.openBoth(ctx, target, base, func(f, g *os.File) error { return use(g, f) })
	}
	return t.openSame(ctx, base, func(f *os.File) error {
		return t.openSame(ctx, target, func(g *os.File) error { return use(f, g) })
	})
}

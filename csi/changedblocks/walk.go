package changedblocks

import (
	"context"
	"fmt"
	"os"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/volume"
)

// walk goes through the target from at on, a page at a time.
type walk struct {
	tracker *Tracker
	base    *image // nil: all zeroes
	target  *image
	at      int64
}

func (w *walk) run(ctx context.Context, each Each) error {
	size := w.target.size
	if w.at < 0 || w.at > size {
		return fmt.Errorf("%w: snapshot %s has %d bytes, the starting offset is %d",
			volume.ErrSize, w.target.id, size, w.at)
	}

	for first := true; first || w.at < size; first = false {
		changed, err := w.page(ctx)
		if err != nil {
			return err
		}
		if !first && len(changed) == 0 {
			continue
		}
		if err := each(size, changed); err != nil {
			return err
		}
	}
	return nil
}

// page looks up the next page, goes on behind it, and returns what has changed in it.
func (w *walk) page(ctx context.Context) (changed []Range, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}

	err = w.tracker.openBoth(ctx, w.base, w.target, func(base, target *os.File) error {
		changed, err = w.inTurn(ctx, base, target)
		return err
	})
	return changed, err
}

// inTurn looks up the next page when it is its turn. That is asked for when the snapshots are locked: who
// waits for a snapshot keeps nobody from looking at others.
func (w *walk) inTurn(ctx context.Context, base, target *os.File) ([]Range, error) {
	select {
	case w.tracker.pages <- struct{}{}:
		defer func() { <-w.tracker.pages }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}

	for range attempts {
		was, is, isOfOneMoment, err := w.read(base, target)
		if err != nil {
			return nil, err
		}
		if isOfOneMoment {
			return w.take(was, is), nil
		}
	}
	return nil, fmt.Errorf("%w: too much is being made in the pool to see the blocks of snapshot %s and of"+
		" its base at one moment", volume.ErrUnavailable, w.target.id)
}

// read reads the next extents of both images, and reports whether they are of one moment: no transaction
// began since the first was read.
func (w *walk) read(base, target *os.File) (was, is extents, isOfOneMoment bool, err error) {
	before, err := btrfs.Stat(target)
	if err != nil {
		return was, is, false, err
	}

	if was, err = w.base.read(base); err != nil {
		return was, is, false, err
	}
	if is, err = w.target.read(target); err != nil {
		return was, is, false, err
	}

	after, err := btrfs.Stat(target)
	return was, is, before.Generation == after.Generation, err
}

// take compares what was read, as far as it was of both images, and goes on behind that.
func (w *walk) take(was, is extents) []Range {
	until := min(was.until, is.until, w.target.size)
	changed := compare(was.list, is.list, w.at, until)

	// Before the starting offset there is nothing to compare.
	w.at = max(w.at, until)
	w.target.next = is.after(w.at)
	if w.base != nil {
		w.base.next = was.after(w.at)
	}
	return changed
}

// extents are some of those of an image, see btrfs.Extents.
type extents struct {
	list  []btrfs.Extent
	until int64
}

// read reads the next extents of an image. None has none.
func (i *image) read(f *os.File) (x extents, err error) {
	if i == nil {
		return extents{until: endOfFile}, nil
	}
	x.list, x.until, err = btrfs.Extents(f, i.next)
	return x, err
}

// after returns where the first extent begins that does not end before an offset.
func (x extents) after(offset int64) int64 {
	for _, e := range x.list {
		if e.End() > offset {
			return e.Offset
		}
	}
	return x.until
}

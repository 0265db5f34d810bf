package btrfspool

import (
	"context"
	"errors"
	"math"
	"os"
	"time"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/copies"
)

const (
	// countPause is how long a count holds at least, and countRest for how many times what it took.
	countPause = 10 * time.Second
	countRest  = 200
)

// counter counts what is old of volumes, see copies.Old.
type counter struct {
	*mountpoint
	shares *shares
}

// run counts the old extents of volumes until ctx ends.
func (c *counter) run(ctx context.Context) {
	for ctx.Err() == nil {
		volumes, next := c.shares.old.Due(time.Now())
		for id, before := range volumes {
			c.shares.old.Counted(id, before, c.count(ctx, id, before))
			c.lower(id)
		}
		if len(volumes) > 0 {
			continue
		}

		wait := time.Duration(math.MaxInt64)
		if !next.IsZero() {
			wait = time.Until(next)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-c.shares.old.Wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// lower takes from a volume what it needs no more.
func (c *counter) lower(id string) {
	fs, leave, err := c.enter()
	if err != nil {
		return
	}
	defer leave()

	// What fails is repeated when the capacity is asked for.
	_, _ = c.shares.lower(fs, id)
}

// count counts the old bytes of one volume. Where that fails there are as many as before.
func (c *counter) count(ctx context.Context, id string, before copies.Count) copies.Count {
	began := time.Now()
	now, count, err := c.beginCount(id, before)
	for err == nil && !count.Done && ctx.Err() == nil {
		err = c.stepCount(count)
	}
	if err == nil && count.Done {
		now.Bytes = min(now.Bytes, rewritten(count.Bytes))
	}
	now.Again = time.Now().Add(max(countPause, countRest*time.Since(began)))
	return now
}

func (c *counter) stepCount(count *btrfs.Count) error {
	fs, leave, err := c.enter()
	if err != nil {
		return err
	}
	defer leave()
	return count.Step(fs.dir)
}

// errSame says that a volume is as it was when it was last counted.
var errSame = errors.New("it is as it was")

func (c *counter) beginCount(id string, before copies.Count) (copies.Count, *btrfs.Count, error) {
	fs, leave, err := c.enter()
	if err != nil {
		return before, nil, err
	}
	defer leave()

	t, known := c.shares.known(id)
	if !known {
		return copies.Count{}, &btrfs.Count{Done: true}, nil
	}
	sub, err := fs.inspect(id)
	if err != nil {
		return before, nil, err
	}
	if sub.Changed == before.Changed {
		return before, nil, errSame
	}

	first, last, err := c.shares.oldTransactions(fs, t, sub)
	return copies.Count{Bytes: before.Bytes, Changed: sub.Changed}, btrfs.NewCount(sub, first, last), err
}

// oldTransactions returns those in which a volume wrote what is old of it and not kept by its copies: none if
// the last copy is still there, for that keeps all.
func (h *shares) oldTransactions(
	fs *subvolumes,
	t tenant,
	sub btrfs.Subvolume,
) (first, last uint64, err error) {
	if last, err = btrfs.LastSnapshot(fs.dir, sub); err != nil {
		return 0, 0, err
	}

	for _, id := range h.copies.Those(t.id) {
		made, err := fs.inspect(id)
		if err == nil && made.Created >= last {
			return 1, 0, nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, 0, err
		}
	}

	// What a copy began with was written by others, and is charged to them.
	first = sub.Created
	if t.copied {
		first++
	}
	return first, last, nil
}

func isFreed(fs *subvolumes, sub btrfs.Subvolume) bool {
	freed, err := btrfs.IsFreed(fs.dir, sub)
	return freed && err == nil
}

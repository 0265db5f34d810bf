package btrfspool

import (
	"context"
	"errors"
	"math"
	"os"
	"sync"
	"time"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/volume"
)

// Blocks that a snapshot had are written to a new place when they are next written over, also when the
// snapshot is gone, and the old extent stays charged until the last of its blocks was. So the limit of a
// volume stays raised by what it has of old extents, and nobody else is promised those bytes. They are counted
// (btrfs.Count): until then they are what the snapshot kept, at most.

// old is how many bytes of each volume are in old extents beyond what copies keep, with what it takes to write
// them to new places. It is safe for concurrent use.
type old struct {
	wake chan struct{} // holds a value when there is something to be counted

	// mu guards what follows.
	mu     sync.Mutex
	counts map[string]oldCount // by ID
}

type oldCount struct {
	bytes   int64  // no less than there are
	changed uint64 // btrfs.Subvolume.Changed at the last count
	again   time.Time
}

func newOld() *old {
	return &old{wake: make(chan struct{}, 1), counts: map[string]oldCount{}}
}

// of returns how many bytes of a volume are old, or more.
func (o *old) of(id string) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts[id].bytes
}

// suspect says that so many bytes of a volume may be old, and has them counted.
func (o *old) suspect(id string, bytes int64) {
	if bytes <= 0 {
		return
	}

	o.mu.Lock()
	defer o.mu.Unlock()
	o.counts[id] = oldCount{bytes: max(bytes, o.counts[id].bytes)}

	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// forget drops what is known of a volume: copies keep all that is old of it, or it is gone.
func (o *old) forget(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.counts, id)
}

// counted says how many bytes of a volume are old, unless more were suspected meanwhile.
func (o *old) counted(id string, before, now oldCount) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.counts[id] != before:
	case now.bytes == 0:
		delete(o.counts, id)
	default:
		o.counts[id] = now
	}
}

// due returns the volumes that are to be counted now, and when the next one is; the zero time: none is.
func (o *old) due(now time.Time) (volumes map[string]oldCount, next time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	volumes = map[string]oldCount{}
	for id, count := range o.counts {
		switch {
		case !count.again.After(now):
			volumes[id] = count
		case next.IsZero() || count.again.Before(next):
			next = count.again
		}
	}
	return volumes, next
}

const (
	// countPause is how long a count holds at least, and countRest for how many times what it took.
	countPause = 10 * time.Second
	countRest  = 200
)

// countOld counts the old extents of volumes until ctx ends.
func (p *Pool) countOld(ctx context.Context) {
	for ctx.Err() == nil {
		volumes, next := p.shares.old.due(time.Now())
		for id, before := range volumes {
			p.shares.old.counted(id, before, p.count(ctx, id, before))
			p.lower(id)
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
		case <-p.shares.old.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// lower takes from a volume what it needs no more.
func (p *Pool) lower(id string) {
	fs, leave, err := p.enter()
	if err != nil {
		return
	}
	defer leave()

	// What fails is repeated when the capacity is asked for.
	_, _ = p.shares.lower(fs, id)
}

// count counts the old bytes of one volume. Where that fails there are as many as before.
func (p *Pool) count(ctx context.Context, id string, before oldCount) oldCount {
	began := time.Now()
	now, count, err := p.beginCount(id, before)
	for err == nil && !count.Done && ctx.Err() == nil {
		err = p.stepCount(count)
	}
	if err == nil && count.Done {
		now.bytes = min(now.bytes, rewritten(count.Bytes))
	}
	now.again = time.Now().Add(max(countPause, countRest*time.Since(began)))
	return now
}

func (p *Pool) stepCount(count *btrfs.Count) error {
	fs, leave, err := p.enter()
	if err != nil {
		return err
	}
	defer leave()
	return count.Step(fs.dir)
}

// errSame says that a volume is as it was when it was last counted.
var errSame = errors.New("it is as it was")

func (p *Pool) beginCount(id string, before oldCount) (oldCount, *btrfs.Count, error) {
	fs, leave, err := p.enter()
	if err != nil {
		return before, nil, err
	}
	defer leave()

	s, known := p.shares.known(id)
	if !known {
		return oldCount{}, &btrfs.Count{Done: true}, nil
	}
	sub, err := fs.inspect(id)
	if err != nil {
		return before, nil, err
	}
	if sub.Changed == before.changed {
		return before, nil, errSame
	}

	first, last, err := p.shares.oldTransactions(fs, s, sub)
	return oldCount{bytes: before.bytes, changed: sub.Changed}, btrfs.NewCount(sub, first, last), err
}

// oldTransactions returns those in which a volume wrote what is old of it and not kept by its copies: none if
// the last copy is still there, for that keeps all.
func (h *shares) oldTransactions(
	fs *subvolumes,
	s volume.Spec,
	sub btrfs.Subvolume,
) (first, last uint64, err error) {
	if last, err = btrfs.LastSnapshot(fs.dir, sub); err != nil {
		return 0, 0, err
	}

	for _, id := range h.copies.those(s.ID) {
		copy, err := fs.inspect(id)
		if err == nil && copy.Created >= last {
			return 1, 0, nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, 0, err
		}
	}

	// What a copy began with was written by others, and is charged to them.
	first = sub.Created
	if s.Source != "" {
		first++
	}
	return first, last, nil
}

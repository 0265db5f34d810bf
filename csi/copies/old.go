package copies

import (
	"sync"
	"time"
)

// Blocks that a snapshot had are written to a new place when they are next written over, also when the
// snapshot is gone, and the old extent stays charged until the last of its blocks was. So the limit of a
// volume stays raised by what it has of old extents, and nobody else is promised those bytes. They are
// counted (btrfs.Count): until then they are what the snapshot kept, at most.

// Old is how many bytes of each volume are in old extents beyond what copies keep, with what it takes to
// write them to new places. It is safe for concurrent use.
type Old struct {
	Wake chan struct{} // holds a value when there is something to be counted

	// mu guards what follows.
	mu     sync.Mutex
	counts map[string]Count // by ID
}

// Count is how many bytes of a volume are old.
type Count struct {
	Bytes   int64     // no fewer than there are
	Changed uint64    // btrfs.Subvolume.Changed at the last count
	Again   time.Time // they are not counted before
}

// NewOld returns one without counts.
func NewOld() *Old {
	return &Old{Wake: make(chan struct{}, 1), counts: map[string]Count{}}
}

// Of returns how many bytes of a volume are old, or more.
func (o *Old) Of(id string) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts[id].Bytes
}

// Suspect says that so many bytes of a volume may be old, and has them counted.
func (o *Old) Suspect(id string, bytes int64) {
	if bytes <= 0 {
		return
	}

	o.mu.Lock()
	defer o.mu.Unlock()
	o.counts[id] = Count{Bytes: max(bytes, o.counts[id].Bytes)}

	select {
	case o.Wake <- struct{}{}:
	default:
	}
}

// Forget drops what is known of a volume: copies keep all that is old of it, or it is gone.
func (o *Old) Forget(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.counts, id)
}

// Counted says how many bytes of a volume are old, unless more were suspected meanwhile.
func (o *Old) Counted(id string, before, now Count) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.counts[id] != before:
	case now.Bytes == 0:
		delete(o.counts, id)
	default:
		o.counts[id] = now
	}
}

// Due returns the volumes that are to be counted now, and when the next one is; the zero time: none is.
func (o *Old) Due(now time.Time) (volumes map[string]Count, next time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	volumes = map[string]Count{}
	for id, count := range o.counts {
		switch {
		case !count.Again.After(now):
			volumes[id] = count
		case next.IsZero() || count.Again.Before(next):
			next = count.Again
		}
	}
	return volumes, next
}

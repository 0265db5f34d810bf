package volume

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/keylock"
)

// phase is how far a volume has come.
type phase string

const (
	making   phase = "making"
	ready    phase = "ready"
	deleting phase = "deleting"
)

var phases = []phase{making, ready, deleting}

// recordVersion is what this version writes of volumes that versions without snapshots know, too. Those leave
// volumes with copyVersion alone: they would hand out a snapshot as a volume, the subvolume that an image is
// in as what is in the image, and neither raise a limit for a copy nor reserve.
const (
	recordVersion = 1
	copyVersion   = 2

	// encryptedVersion is of encrypted volumes: earlier versions would hand out the file system that the
	// encrypted directory is in.
	encryptedVersion = 3
)

func versionOf(s Spec) int {
	if s.Encryption != "" {
		return encryptedVersion
	}
	if s.Snapshot || s.Source != "" || s.Reserve || s.Pooled {
		return copyVersion
	}
	return recordVersion
}

// record is the durable state of a volume.
type record struct {
	Version int   `json:"version"`
	Phase   phase `json:"phase"`
	Spec    Spec  `json:"spec"`
	Origin
	Created time.Time `json:"created"`

	// Not on disk: why the volume cannot be used, or cannot be taken away; that its content was missed while
	// the driver ran, which must not be made again; and which of all records that were ever put into the
	// index it is.
	damage error
	missed bool
	entry  uint64
}

// check returns ErrDamaged for a record that is not what this version writes.
func (r record) check(id string) error {
	known := r.Version == versionOf(r.Spec) && slices.Contains(phases, r.Phase)
	if known && r.Spec.ID == id && r.Spec.Size > 0 {
		return nil
	}
	return fmt.Errorf("%w: its record has version %d, phase %q, id %q and size %d",
		ErrDamaged, r.Version, r.Phase, r.Spec.ID, r.Spec.Size)
}

// Recorded is a record as it is on disk, for those who only look.
type Recorded struct {
	Spec
	Phase   string // making, ready or deleting
	Created time.Time

	// Err is ErrDamaged for a record that this version does not write.
	Err error
}

// Need is what is promised for the volume.
func (r Recorded) Need() space.Need { return r.Spec.need() }

// IsReady reports whether the volume was acknowledged.
func (r Recorded) IsReady() bool { return r.Phase == string(ready) }

// IsLent reports whether it is a snapshot that Store.Lend has made.
func (r Recorded) IsLent() bool {
	return strings.HasPrefix(r.Name, lentPrefix) && r.Phase == string(making)
}

// Read reads the records in a directory beside a Store that works on it, or without one. It changes nothing.
func Read(dir string) (map[string]Recorded, []durable.Unreadable, error) {
	records, unreadable, err := durable.Peek[record](dir)
	recorded := make(map[string]Recorded, len(records))
	for id, r := range records {
		recorded[id] = Recorded{
			Spec:    r.Spec,
			Phase:   string(r.Phase),
			Created: r.Created,
			Err:     r.check(id),
		}
	}
	return recorded, unreadable, err
}

// isNews reports whether what a look has seen takes the place of what is known to be wrong. A record that
// cannot be used stays that, and what a recovery has found out stays as long as it comes to the same.
func (r record) isNews(seen error) bool {
	switch {
	case r.damage == nil:
		return true
	case r.check(r.Spec.ID) != nil:
		return false
	case r.missed:
		return !same(r.damage, seen)
	}
	return errors.Is(r.damage, ErrLost) != errors.Is(seen, ErrLost)
}

// unfinished reports whether it is of a creation that failed, and that could not be undone then.
func (r record) unfinished() bool {
	return r.Phase == making && r.damage != nil && !errors.Is(r.damage, ErrDamaged)
}

// destroyed reports whether the content is gone, so that only the record is left.
func (r record) destroyed() bool { return r.Phase == deleting && r.damage == nil }

// catalog is the volumes with their records, on disk and in memory, and what holds them. The Store, its
// recovery and its upkeep work on one.
type catalog struct {
	dir      string // of the records
	backends backends
	records  *durable.Store[record]
	index    *index
	health   *health
	locks    keylock.Locks[string] // by volume ID; held through each operation
	changes  chan struct{}         // holds a value when free space has changed
}

// lock keeps everybody else from working on a volume until unlock is called, once.
func (c *catalog) lock(ctx context.Context, id string) (unlock func(), err error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	return c.locks.Lock(ctx, id)
}

// acquire is lock for a volume that can be used, whose record it returns.
func (c *catalog) acquire(ctx context.Context, id string) (r record, unlock func(), err error) {
	unlock, err = c.lock(ctx, id)
	if err != nil {
		return record{}, nil, err
	}

	r, err = c.find(id)
	if err == nil && r.damage != nil {
		err = fmt.Errorf("volume %s: %w", id, r.damage)
	}

	if err != nil {
		unlock()
		return record{}, nil, err
	}

	return r, unlock, nil
}

// acquireSource is acquire for who has locked what is made of the volume. Only one that exists is waited for,
// and such a one waits for nobody: no two requests wait for each other.
func (c *catalog) acquireSource(ctx context.Context, id string) (r record, unlock func(), err error) {
	if _, err = c.find(id); err == nil {
		r, unlock, err = c.acquire(ctx, id)
	}
	if err != nil {
		return record{}, nil, fmt.Errorf("source: %w", err)
	}
	return r, unlock, nil
}

// unlocks free what is locked.
type unlocks []func()

func (held *unlocks) all() {
	for _, unlock := range *held {
		unlock()
	}
}

func (c *catalog) view(r record) Volume { return viewOf(r, c.health.of(r.Spec.Backend)) }

// viewOf is what others see of a volume, with the trouble of its backend.
func viewOf(r record, trouble error) Volume {
	return Volume{
		Spec:    r.Spec,
		Created: r.Created,
		Damage:  r.damage,
		Trouble: trouble,
	}
}

func (c *catalog) views(records []record) []Volume {
	volumes := make([]Volume, len(records))
	for i, r := range records {
		volumes[i] = c.view(r)
	}
	return volumes
}

// find returns the record of a ready volume.
func (c *catalog) find(id string) (record, error) {
	if err := CheckID(id); err != nil {
		return record{}, err
	}

	r, ok := c.index.get(id)
	if ok && r.Phase == ready {
		return r, nil
	}

	// A volume whose record was set aside is there; the error says how to have it back.
	if err := c.checkNotSetAside(id); err != nil {
		return record{}, err
	}

	return record{}, fmt.Errorf("%w: %s", ErrNotFound, id)
}

// checkNotSetAside returns ErrDamaged if a record of the volume could not be read and was set aside.
func (c *catalog) checkNotSetAside(id string) error {
	aside, err := c.records.Quarantined(id)
	if err != nil || len(aside) == 0 {
		return err
	}
	return fmt.Errorf("%w: volume %s has data, and its record %s could not be read; to have it back,"+
		" mend the record, move it to %s and restart the driver; to discard it, delete volume %s",
		ErrDamaged, id, aside[0], filepath.Join(c.dir, id+".json"), id)
}

func (c *catalog) changed() {
	select {
	case c.changes <- struct{}{}:
	default:
	}
}

// putAll writes records side by side: they share their syncs.
func (c *catalog) putAll(records []record) error {
	var group errgroup.Group
	group.SetLimit(parallelism)
	for _, r := range records {
		group.Go(func() error { return c.records.Put(r.Spec.ID, r) })
	}
	return group.Wait()
}

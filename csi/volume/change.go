package volume

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"github.com/trivet-node/trivet/csi/space"
)

// Grow makes a volume at least required bytes large (at most limit, if that is not 0). A volume that already
// is stays as it is: volumes never shrink. Where it is in use, its file system may have to grow, too; see
// package publish.
func (s *Store) Grow(ctx context.Context, id string, required, limit int64) (Volume, error) {
	r, unlock, err := s.acquire(ctx, id)
	if err != nil {
		return Volume{}, err
	}
	defer unlock()

	if r.Spec.Snapshot {
		return Volume{}, fmt.Errorf("%w: %s is a snapshot", ErrNotFound, id)
	}

	size, err := Request{Required: max(required, 1), Limit: limit}.size()
	if err != nil {
		return Volume{}, err
	}

	if limit > 0 && r.Spec.Size > limit {
		return Volume{}, fmt.Errorf("%w: volume %s has %d bytes already, the limit is %d",
			ErrSize, id, r.Spec.Size, limit)
	}

	// The record is written first: a process that is killed before the backend has grown finishes by a
	// repeat.
	before := r
	if size > r.Spec.Size {
		if r, err = s.enlarge(r, size); err != nil {
			return Volume{}, err
		}
	}

	// This is also done for a volume that is large enough: it finishes a Grow that was cut short after its
	// record was written.
	if err := s.backends.byName[r.Spec.Backend].Grow(r.Spec); err != nil {
		s.restore(before)
		return Volume{}, fmt.Errorf("grow volume %s: %w", id, err)
	}

	s.changed()
	return s.view(r), nil
}

// enlarge promises the additional bytes and records the new size.
func (c *catalog) enlarge(before record, size int64) (record, error) {
	r, id := before, before.Spec.ID
	r.Spec.Size = size
	err := c.index.promise(r)
	if _, short := errors.AsType[*space.Shortage](err); short {
		err = fmt.Errorf("%w: %w", ErrSize, err)
	}
	if err != nil {
		return before, err
	}

	c.index.put(id, r)

	if err := c.records.Put(id, r); err != nil {
		c.index.put(id, before)
		return before, fmt.Errorf("grow volume %s: %w", id, err)
	}

	return r, nil
}

// restore puts the record back after a failed growth. If even that fails, the larger size stays promised, and
// a repeated Grow uses it.
func (c *catalog) restore(r record) {
	if c.records.Put(r.Spec.ID, r) == nil {
		c.index.put(r.Spec.ID, r)
	}
}

// Modify records the limits of a volume, in place of those that it has. Where the volume is in use, they have
// to be put in force, too; see package publish.
func (s *Store) Modify(ctx context.Context, id string, l Limits) (Volume, error) {
	r, unlock, err := s.acquire(ctx, id)
	if err != nil {
		return Volume{}, err
	}
	defer unlock()

	if r.Spec.Snapshot {
		return Volume{}, fmt.Errorf("%w: %s is a snapshot", ErrNotFound, id)
	}
	if r.Spec.Limits == l {
		return s.view(r), nil
	}

	r.Spec.Limits = l
	if err := s.backends.checkLimits(r.Spec); err != nil {
		return Volume{}, fmt.Errorf("limits of volume %s: %w", id, err)
	}
	if err := s.records.Put(id, r); err != nil {
		return Volume{}, fmt.Errorf("record the limits of volume %s: %w", id, err)
	}

	s.index.put(id, r)
	return s.view(r), nil
}

// Delete takes the volume and its content away. What does not exist is success. When it returns, the bytes
// are free again; Run, or the next start, makes the deletion survive a power loss.
func (s *Store) Delete(ctx context.Context, id string) error {
	unlock, err := s.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	if where, held := s.index.holder(id); held {
		return fmt.Errorf("%w: %s is %s", ErrInUse, id, where)
	}

	r, known := s.index.get(id)
	if !known {
		return s.deleteUnknown(id)
	}

	backend := s.backends.byName[r.Spec.Backend]
	if backend == nil {
		return fmt.Errorf("delete volume %s: %w", id, r.damage)
	}

	// On a full disk the record is written over in place: nobody must be kept from making room.
	before := r
	r.Phase = deleting
	if err := s.records.Update(id, r); err != nil {
		return fmt.Errorf("delete volume %s: %w", id, err)
	}

	// From here on the next start finishes the deletion.
	err = backend.Destroy(id)
	if errors.Is(err, ErrInUse) {
		// The backend saw a user although nobody holds the volume: it stays as it is.
		return errors.Join(err, s.records.Update(id, before))
	}

	r.damage = err
	s.index.put(id, r)
	if err != nil {
		// Its bytes stay promised until a repeated Delete, or the next start, succeeds.
		return fmt.Errorf("delete volume %s: %w", id, err)
	}

	s.upkeep.wake()
	s.changed()
	return nil
}

// deleteUnknown takes away what backends hold under an ID without a record, or with one that was set aside:
// that data is kept until somebody deletes it by its ID.
func (c *catalog) deleteUnknown(id string) error {
	if err := c.backends.destroyUnclaimed(id); err != nil {
		return err
	}
	if err := c.records.Discard(id); err != nil {
		return fmt.Errorf("delete the record of volume %s that was set aside: %w", id, err)
	}
	return nil
}

// Fill is Create of a volume with content that fill writes and syncs. Request.Imported names the content: a
// repeated request for the same finds the volume, and fill is not called.
func (s *Store) Fill(ctx context.Context, r Request, fill func(Spec) error) (Volume, error) {
	return s.creation.fill(ctx, r, fill)
}

func (c *creation) fill(ctx context.Context, r Request, fill func(Spec) error) (Volume, error) {
	if r.Imported == "" || r.Source != "" || r.Snapshot {
		return Volume{}, fmt.Errorf("%w: content to import has no name, or volume %s has other content, too",
			ErrInvalid, r.Name)
	}

	spec, err := c.backends.complete(r)
	if err != nil {
		return Volume{}, err
	}

	unlock, err := c.lock(ctx, spec.ID)
	if err != nil {
		return Volume{}, err
	}
	defer unlock()

	if v, found, err := c.existing(r); found {
		return v, err
	}
	return c.begin(spec, func(b Backend, spec Spec) (Spec, Origin, error) {
		spec, origin, err := makeEmpty(b, spec)
		if err == nil {
			err = c.holding(spec.ID, "being imported", func() error { return fill(spec) })
		}
		return spec, origin, err
	})
}

// Lend has use read what a volume or snapshot holds at this moment: a snapshot that is gone when use has
// returned, at the latest after the next start. Where a backend has no snapshots it is the volume itself: one
// in use is ErrInUse, and nobody else gets it meanwhile.
func (s *Store) Lend(ctx context.Context, id string, use func(Spec) error) error {
	r, err := s.find(id)
	if err != nil {
		return err
	}
	if r.Spec.Encryption != "" {
		return fmt.Errorf("%w: %s is encrypted, and only pods that use it can read it: copy what it holds"+
			" in one", ErrInvalid, id)
	}
	if _, ok := s.backends.byName[r.Spec.Backend].(Copier); ok {
		return s.creation.lendCopy(ctx, id, use)
	}
	return s.creation.lendItself(ctx, id, use)
}

// holding keeps a backend from doing what it does when none of its volumes is in use.
func (c *catalog) holding(id, why string, do func() error) error {
	c.index.hold(id, why)
	defer c.index.release(id)
	return do()
}

// lentPrefix begins the names of snapshots that are lent.
const lentPrefix = "lent/"

// errReturned ends the creation of a snapshot that was only lent.
var errReturned = errors.New("it was lent")

// lendCopy begins to make a snapshot, and never finishes: its record says making, so that it is taken away
// like what a killed process left.
func (c *creation) lendCopy(ctx context.Context, id string, use func(Spec) error) error {
	source, unlock, err := c.acquire(ctx, id)
	if err != nil {
		return err
	}
	unlockSource := sync.OnceFunc(unlock)
	defer unlockSource()

	request := Request{Name: lentPrefix + rand.Text(), Source: id, Snapshot: true}
	spec, copier, err := c.specOfCopy(request, source.Spec)
	if err != nil {
		return err
	}

	// Nobody else knows the name.
	unlockCopy, err := c.lock(ctx, spec.ID)
	if err != nil {
		return err
	}
	defer unlockCopy()

	intent := intentOf(spec)
	if err := c.promise(intent); err != nil {
		return err
	}

	_, err = c.make(intent, func(_ Backend, spec Spec) (Spec, Origin, error) {
		made, origin, err := copier.Copy(spec, source.Spec)
		intent.Spec = made
		if err == nil {
			err = c.promise(intent)
		}

		unlockSource()
		if err == nil {
			err = c.holding(spec.ID, "being exported", func() error { return use(made) })
		}

		if err == nil {
			err = errReturned
		}
		return made, origin, err
	})
	c.changed()

	if errors.Is(err, errReturned) {
		return nil
	}
	return err
}

func (c *creation) lendItself(ctx context.Context, id string, use func(Spec) error) error {
	r, unlock, err := c.acquire(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	if where, held := c.index.holder(id); held {
		return fmt.Errorf("%w: %s is %s, and its backend %s has no snapshots: end the pods that use it first",
			ErrInUse, id, where, r.Spec.Backend)
	}

	return c.holding(id, "being exported", func() error { return use(r.Spec) })
}

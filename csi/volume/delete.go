package volume

import (
	"context"
	"errors"
	"fmt"
)

// Delete takes the volume and its content away. What does not exist is success. When it returns, the bytes
// are free again; Run, or the next start, makes the deletion survive a power loss.
func (s *Store) Delete(ctx context.Context, id string) error {
	unlock, err := s.Lock(ctx, id)
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

	// The record is written over in place: a full disk must not keep anybody from making room.
	before := r
	r.Phase = deleting
	if err := s.records.Update(id, r); err != nil {
		return fmt.Errorf("delete volume %s: %w", id, err)
	}

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

	select {
	case s.destroyed <- struct{}{}:
	default:
	}

	s.changed()
	return nil
}

// deleteUnknown takes away what backends hold under an ID without a record, or with one that was set aside:
// that data is kept until somebody deletes it by its ID.
func (s *Store) deleteUnknown(id string) error {
	if err := s.backends.destroyUnclaimed(id); err != nil {
		return err
	}
	if err := s.records.Discard(id); err != nil {
		return fmt.Errorf("delete the record of volume %s that was set aside: %w", id, err)
	}
	return nil
}

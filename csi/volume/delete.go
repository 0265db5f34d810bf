package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Delete takes the volume and its content away. What does not exist is success. The space is free again when
// it returns; that the deletion survives a power loss is seen to in the background, or by the next start.
func (s *Service) Delete(ctx context.Context, id string) error {
	if err := CheckID(id); err != nil {
		return err
	}

	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	r, known := s.peek(id)
	if staged, ok := s.staging(id); ok {
		return fmt.Errorf("%w: %s is staged on %s", ErrInUse, id, staged.Path)
	}
	if !known {
		return s.deleteUnknown(id)
	}

	backend := s.cfg.Backends[r.Spec.Backend]
	if backend == nil {
		return fmt.Errorf("delete volume %s: %w", id, r.damage)
	}

	before := r
	r.Phase = deleting

	// a full disk must not keep anybody from making room
	if err := s.records.Update(id, r); err != nil {
		return fmt.Errorf("delete volume %s: %w", id, err)
	}

	if err := backend.Destroy(id); err != nil {
		// the backend saw a user that the staging records don't know: the volume lives on
		if errors.Is(err, ErrInUse) {
			return errors.Join(err, s.records.Update(id, before))
		}

		r.damage = err

		// counts until a repeated Delete, or the next start, succeeds
		s.put(id, r)
		return fmt.Errorf("delete volume %s: %w", id, err)
	}

	r.damage = nil
	s.put(id, r)

	select {
	case s.dead <- struct{}{}:
	// Run is already woken
	default:
	}

	s.changed()
	return nil
}

// deleteUnknown takes away what the backends hold under an ID that no record tells of, or only one that was
// set aside: that data is kept until somebody asks for its end by its name.
func (s *Service) deleteUnknown(id string) error {
	for name, backend := range s.cfg.Backends {
		_, err := backend.Empty(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = errors.Join(backend.Destroy(id), backend.Commit())
		}
		if err != nil {
			return fmt.Errorf("delete volume %s of backend %s: %w", id, name, err)
		}
	}

	if err := s.records.Discard(id); err != nil {
		return fmt.Errorf("delete the record of volume %s that was set aside: %w", id, err)
	}

	return nil
}

package volume

import (
	"context"
	"errors"
	"fmt"
)

// Delete takes the volume and its content away. What does not exist is success. The space is free again when it returns; that the deletion
// survives a power loss is seen to in the background, or by the next start.
func (s *Service) Delete(ctx context.Context, id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	r, ok := s.peek(id)
	if !ok {
		return nil
	}
	if staged, ok := s.staging(id); ok {
		return fmt.Errorf("%w: %s is staged on %s", ErrInUse, id, staged.Path)
	}
	backend := s.cfg.Backends[r.Spec.Backend]
	if backend == nil {
		return fmt.Errorf("delete volume %s: %w", id, r.damage)
	}
	before := r
	r.Phase = deleting
	if err := s.records.Put(id, r); err != nil {
		return fmt.Errorf("delete volume %s: %w", id, err)
	}
	if err := backend.Destroy(id); err != nil {
		if errors.Is(err, ErrInUse) { // the backend saw a user that the staging records don't know: the volume lives on
			return errors.Join(err, s.records.Put(id, before))
		}
		r.damage = err
		s.put(id, r) // counts until a repeated Delete, or the next start, succeeds
		return fmt.Errorf("delete volume %s: %w", id, err)
	}
	r.damage = nil
	s.put(id, r)
	select {
	case s.dead <- struct{}{}:
	default: // Run is already woken
	}
	s.changed()
	return nil
}

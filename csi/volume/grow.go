package volume

import (
	"context"
	"fmt"
)

// Grow makes a volume at least required bytes large (at most limit, if that is not 0). A volume that already
// is stays as it is: volumes never shrink. nodeStep reports that GrowAttached has to follow where the volume
// is staged.
func (s *Service) Grow(
	ctx context.Context,
	id string,
	required, limit int64,
) (v Volume, nodeStep bool, err error) {
	if err := CheckID(id); err != nil {
		return Volume{}, false, err
	}

	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return Volume{}, false, err
	}
	defer unlock()

	r, err := s.find(id)
	if err != nil {
		return Volume{}, false, err
	}
	if r.damage != nil {
		return Volume{}, false, r.damage
	}

	size, err := Request{Required: max(required, 1), Limit: limit}.size()
	if err != nil {
		return Volume{}, false, err
	}

	if limit > 0 && r.Spec.Size > limit {
		return Volume{}, false, fmt.Errorf("%w: volume %s has %d bytes already, the limit is %d",
			ErrSize, id, r.Spec.Size, limit)
	}

	before := r
	if size > r.Spec.Size {
		if r, err = s.enlarge(r, size); err != nil {
			return Volume{}, false, err
		}
	}

	// Repeated for a volume that is large enough: a Grow that was cut short after its record was written is
	// finished so.
	if nodeStep, err = s.cfg.Backends[r.Spec.Backend].Grow(r.Spec); err != nil {
		s.restore(before)
		return Volume{}, false, fmt.Errorf("grow volume %s: %w", id, err)
	}

	s.changed()
	return s.view(r), nodeStep, nil
}

// enlarge promises the additional bytes and records the new size.
func (s *Service) enlarge(before record, size int64) (record, error) {
	r := before
	r.Spec.Size = size
	if err := s.promise(before, r); err != nil {
		return before, err
	}
	if err := s.records.Put(r.Spec.ID, r); err != nil {
		s.put(r.Spec.ID, before)
		return before, fmt.Errorf("grow volume %s: %w", r.Spec.ID, err)
	}
	return r, nil
}

func (s *Service) promise(before, r record) error {
	s.ledger.Lock()
	defer s.ledger.Unlock()

	free, err := s.available(r.Spec.Backend)
	if err != nil {
		return err
	}

	if more := r.Spec.Size - before.Spec.Size; more > free {
		return fmt.Errorf("%w: volume %s can grow by %d bytes, not by %d",
			ErrSize, r.Spec.ID, max(free, 0), more)
	}

	s.put(r.Spec.ID, r)
	return nil
}

// restore puts the record back after a failed growth. If even that fails, the larger size stays promised, and
// a repeated Grow uses it.
func (s *Service) restore(r record) {
	if s.records.Put(r.Spec.ID, r) == nil {
		s.put(r.Spec.ID, r)
	}
}

// GrowAttached finishes the growth of a volume that is staged: the file system takes the new space.
func (s *Service) GrowAttached(ctx context.Context, id string) (Volume, error) {
	if err := CheckID(id); err != nil {
		return Volume{}, err
	}

	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return Volume{}, err
	}
	defer unlock()

	r, err := s.find(id)
	if err != nil {
		return Volume{}, err
	}
	if r.damage != nil {
		return Volume{}, fmt.Errorf("volume %s: %w", id, r.damage)
	}

	staged, ok := s.staging(id)
	if !ok {
		return Volume{}, fmt.Errorf("%w: %s", ErrNotStaged, id)
	}

	err = s.withRoot(r.Spec, staged.Path, func(root rootDir) error {
		return s.cfg.Backends[r.Spec.Backend].GrowAttached(r.Spec, root)
	})
	if err != nil {
		return Volume{}, fmt.Errorf("grow volume %s: %w", id, err)
	}

	return s.view(r), nil
}

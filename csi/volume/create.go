package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trivet-node/trivet/csi/space"
)

// Create creates a volume, or returns the one that an equal request created. When it returns nil, the volume
// survives a power loss.
func (s *Store) Create(ctx context.Context, r Request) (Volume, error) {
	spec, err := s.backends.complete(r)
	if err != nil {
		return Volume{}, err
	}

	unlock, err := s.lock(ctx, spec.ID)
	if err != nil {
		return Volume{}, err
	}
	defer unlock()

	// The ID follows from the name, so that a repeated request finds the volume of the first.
	old, known := s.index.get(spec.ID)
	if known && old.Phase == ready {
		return s.view(old), errors.Join(old.damage, r.checkSatisfied(old.Spec))
	}

	// What lies under the ID is only replaced if a record says that it was never acknowledged.
	if known {
		err = s.clearAttempt(spec, old)
	} else {
		err = s.checkUnclaimed(spec.ID)
	}

	if err != nil {
		return Volume{}, err
	}

	// The bytes are promised before anything is written: a full disk is not left with half a volume.
	intent := record{
		Version: recordVersion,
		Phase:   making,
		Spec:    spec,
		Created: time.Now().UTC().Truncate(time.Second),
	}
	if err := s.promise(intent); err != nil {
		return Volume{}, err
	}

	made, err := s.make(intent)
	if err != nil {
		return Volume{}, fmt.Errorf("create volume %s: %w", spec.ID, err)
	}

	s.index.put(spec.ID, made)
	s.changed()
	return s.view(made), nil
}

// checkUnclaimed refuses an ID without a record under which data is kept.
func (s *Store) checkUnclaimed(id string) error {
	if err := s.checkNotSetAside(id); err != nil {
		return fmt.Errorf("create volume %s: %w", id, err)
	}
	return s.backends.checkUnclaimed(id)
}

// clearAttempt makes way for a volume where one of the same ID was not finished, or is being deleted. Content
// in the same backend is left to Backend.Create, which replaces it.
func (s *Store) clearAttempt(spec Spec, old record) error {
	if errors.Is(old.damage, ErrDamaged) {
		return fmt.Errorf("create volume %s: %w", spec.ID, old.damage)
	}
	if old.Spec.Backend == spec.Backend {
		return nil
	}

	backend := s.backends.byName[old.Spec.Backend]
	if backend == nil {
		return fmt.Errorf("create volume %s: an earlier attempt is in the way: %w", spec.ID, old.damage)
	}
	if err := backend.Destroy(spec.ID); err != nil {
		return fmt.Errorf("create volume %s: %w", spec.ID, err)
	}

	return backend.Commit()
}

// promise takes the bytes of a new volume out of what is free.
func (s *Store) promise(r record) error {
	err := s.ledger.Promise(r.promise(r.Spec.ID))
	if _, short := errors.AsType[*space.Shortage](err); short {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	if err != nil {
		return err
	}
	s.index.put(r.Spec.ID, r)
	return nil
}

// make creates the content of an intended volume. What it leaves when it fails is taken away, at the latest
// by the next Create or start. The intent is for a killed process; a power loss may take it away before the
// volume, which is then a stray without data.
func (s *Store) make(r record) (record, error) {
	// The record says making before the content exists, and ready when it does.
	id := r.Spec.ID
	backend := s.backends.byName[r.Spec.Backend]
	err := s.records.Note(id, r)
	if err == nil {
		r.Origin, err = backend.Create(r.Spec)
	}

	if err == nil {
		r.Phase = ready
		if err = s.records.Put(id, r); err == nil {
			return r, nil
		}
	}

	// Where this fails, too, the bytes stay promised until somebody has taken the rest away.
	if backend.Destroy(id) != nil || backend.Commit() != nil || s.records.Delete(id) != nil {
		return r, fmt.Errorf("%w (what it left is removed later)", err)
	}

	s.index.drop(id)
	return r, err
}

package volume

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
)

// Request asks for a volume.
type Request struct {
	Name     string
	Required int64 // bytes at least; 0 leaves it open
	Limit    int64 // bytes at most; 0 leaves it open
	Backend  string
	Access   Access
	FSType   string
	NoCOW    *bool    // nil leaves it open
	Options  []string // mount options that it is going to be used with
}

const (
	defaultSize = 1 << 30
	granularity = 1 << 20 // sizes are multiples of this
)

// size chooses the size of a volume, and says when there is none between the bounds.
func (r Request) size() (int64, error) {
	switch {
	case r.Required < 0 || r.Limit < 0 || r.Limit > 0 && r.Required > r.Limit:
		return 0, fmt.Errorf("%w: %d required bytes with a limit of %d", ErrInvalid, r.Required, r.Limit)
	case r.Required > math.MaxInt64-granularity:
		return 0, fmt.Errorf("%w: %d bytes", ErrSize, r.Required)
	case r.Required == 0 && r.Limit == 0:
		return defaultSize, nil
	case r.Required == 0:
		size := min(defaultSize, r.Limit/granularity*granularity)
		if size == 0 {
			return 0, fmt.Errorf("%w: no volume is smaller than %d bytes, the limit is %d",
				ErrSize, granularity, r.Limit)
		}

		return size, nil
	}

	size := (r.Required + granularity - 1) / granularity * granularity
	if r.Limit > 0 && size > r.Limit {
		return 0, fmt.Errorf("%w: sizes are multiples of %d bytes, none is between %d and %d",
			ErrSize, granularity, r.Required, r.Limit)
	}

	return size, nil
}

// Create makes a volume, or returns the one that an equal request made. When it returns nil, the volume
// survives a power loss.
func (s *Service) Create(ctx context.Context, r Request) (Volume, error) {
	spec, err := s.complete(r)
	if err != nil {
		return Volume{}, err
	}

	unlock, err := s.locks.Lock(ctx, spec.ID)
	if err != nil {
		return Volume{}, err
	}
	defer unlock()

	old, known := s.peek(spec.ID)
	switch {
	case known && old.Phase == ready:
		return s.view(old), errors.Join(old.damage, matches(old.Spec, r))
	case known && errors.Is(old.damage, ErrDamaged):
		return Volume{}, fmt.Errorf("create volume %s: %w", spec.ID, old.damage)
	case !known:
		if err := s.unclaimed(spec.ID); err != nil {
			return Volume{}, err
		}
	}

	if err := s.clearAway(spec); err != nil {
		return Volume{}, err
	}

	intent := record{
		Version: recordVersion,
		Phase:   making,
		Spec:    spec,
		Created: s.now(),
	}
	if err := s.reserve(intent); err != nil {
		return Volume{}, err
	}

	made, err := s.make(intent)
	if err != nil {
		return Volume{}, fmt.Errorf("create volume %s: %w", spec.ID, err)
	}

	s.put(spec.ID, made)
	s.changed()
	return s.view(made), nil
}

// unclaimed refuses an ID under which data is kept that no record tells of: it may be somebody's, and to
// make a volume begins with removing what is in its place.
func (s *Service) unclaimed(id string) error {
	if err := s.wholeRecord(id); err != nil {
		return fmt.Errorf("create volume %s: %w", id, err)
	}

	for name, backend := range s.cfg.Backends {
		empty, err := backend.Empty(id)
		switch {
		case err == nil && !empty:
			return fmt.Errorf("%w: backend %s has data of a volume %s that no record tells of;"+
				" to give it up, delete volume %s", ErrDamaged, name, id, id)
		case err == nil, errors.Is(err, os.ErrNotExist):
		case errors.Is(err, ErrUnavailable), errors.Is(err, ErrDamaged):
			// then it is not the one that serves
		default:
			return fmt.Errorf("create volume %s: %w", id, err)
		}
	}

	return nil
}

// clearAway removes what an attempt with another backend left under the same ID; one with the same backend is
// replaced by Create itself.
func (s *Service) clearAway(spec Spec) error {
	old, ok := s.peek(spec.ID)
	if !ok || old.Spec.Backend == spec.Backend {
		return nil
	}

	backend := s.cfg.Backends[old.Spec.Backend]
	if backend == nil {
		return fmt.Errorf("create volume %s: an earlier attempt is in the way: %w", spec.ID, old.damage)
	}
	if err := backend.Destroy(spec.ID); err != nil {
		return fmt.Errorf("create volume %s: %w", spec.ID, err)
	}

	return backend.Commit()
}

// complete turns a request into a spec, with the first backend that can serve it.
func (s *Service) complete(r Request) (Spec, error) {
	size, err := r.size()
	if err != nil {
		return Spec{}, err
	}

	candidates := s.cfg.Default
	if r.Backend != "" {
		candidates = []string{r.Backend}
	}
	if r.Name == "" || len(r.Name) > 128 || r.Access != Filesystem && r.Access != Block {
		return Spec{}, fmt.Errorf("%w: name %q, access %q", ErrInvalid, r.Name, r.Access)
	}

	var last error
	for _, name := range candidates {
		backend := s.cfg.Backends[name]
		if backend == nil {
			last = fmt.Errorf("%w: backend %q does not work on this node", ErrInvalid, name)
			continue
		}

		spec := r.spec(name, size)
		if last = backend.Complete(&spec, r.Options); last != nil {
			continue
		}

		if r.Limit > 0 && spec.Size > r.Limit {
			return Spec{}, fmt.Errorf("%w: backend %s needs at least %d bytes, the limit is %d",
				ErrSize, name, spec.Size, r.Limit)
		}

		return spec, nil
	}

	return Spec{}, last
}

// spec is what the request says about a volume of one backend. Blocks are overwritten in place unless it says
// otherwise: a volume that was written once must not run full by being written again.
func (r Request) spec(backend string, size int64) Spec {
	return Spec{
		ID:      ID(r.Name),
		Name:    r.Name,
		Size:    size,
		Backend: backend,
		Access:  r.Access,
		FSType:  r.FSType,
		NoCOW:   r.NoCOW == nil || *r.NoCOW,
	}
}

// matches refuses a request that an existing volume of its name does not satisfy.
func matches(spec Spec, r Request) error {
	conflict := func(what string, have, want any) error {
		return fmt.Errorf("%w: volume %s has %s %v, requested was %v", ErrConflict, spec.ID, what, have, want)
	}
	switch {
	case r.Required > spec.Size, r.Limit > 0 && r.Limit < spec.Size:
		return conflict("size", spec.Size, fmt.Sprintf("%d to %d", r.Required, r.Limit))
	case r.Access != spec.Access:
		return conflict("access", spec.Access, r.Access)
	case r.Backend != "" && r.Backend != spec.Backend:
		return conflict("backend", spec.Backend, r.Backend)
	case r.FSType != "" && r.FSType != spec.FSType:
		return conflict("file system", spec.FSType, r.FSType)
	case r.NoCOW != nil && *r.NoCOW != spec.NoCOW:
		return conflict("nocow", spec.NoCOW, *r.NoCOW)
	}

	return nil
}

// make brings an intended volume to life. What it leaves when it fails is taken away, at the latest by the
// next Create or start. The intent is for a killed process; a power loss may take it away before the volume,
// which is then a stray without data.
func (s *Service) make(r record) (record, error) {
	id, backend := r.Spec.ID, s.cfg.Backends[r.Spec.Backend]
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

	if undo := backend.Destroy(id); undo != nil || backend.Commit() != nil || s.records.Delete(id) != nil {
		// the space stays reserved until then
		return r, fmt.Errorf("%w (what it left is removed later)", err)
	}

	s.drop(id)
	return r, err
}

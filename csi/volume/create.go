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
	return s.creation.create(ctx, r)
}

// creation is how volumes come to be.
type creation struct{ *catalog }

func (c *creation) create(ctx context.Context, r Request) (Volume, error) {
	if r.Source != "" {
		return c.copy(ctx, r)
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
	return c.begin(spec, makeEmpty)
}

// existing returns the volume that an equal request created. The ID follows from the name, so that a repeated
// request finds the volume of the first.
func (c *creation) existing(r Request) (v Volume, found bool, err error) {
	old, known := c.index.get(r.id())
	if !known || old.Phase != ready {
		return Volume{}, false, nil
	}
	return c.view(old), true, errors.Join(old.damage, r.checkSatisfied(old.Spec))
}

// begin makes a volume that does not exist, whose ID is locked.
func (c *creation) begin(spec Spec, content maker) (Volume, error) {
	old, known := c.index.get(spec.ID)

	// What lies under the ID is only replaced if a record says that it was never acknowledged.
	var err error
	if known {
		err = c.clearAttempt(spec, old)
	} else {
		err = c.checkUnclaimed(spec.ID)
	}

	if err != nil {
		return Volume{}, err
	}

	// The bytes are promised before anything is written: a full disk is not left with half a volume.
	intent := record{
		Version: versionOf(spec),
		Phase:   making,
		Spec:    spec,
		Created: time.Now().UTC().Truncate(time.Second),
	}
	if err := c.promise(intent); err != nil {
		return Volume{}, err
	}

	made, err := c.make(intent, content)
	if err != nil {
		return Volume{}, fmt.Errorf("create volume %s: %w", spec.ID, err)
	}

	c.index.put(spec.ID, made)
	c.changed()
	return c.view(made), nil
}

// checkUnclaimed refuses an ID without a record under which data is kept.
func (c *creation) checkUnclaimed(id string) error {
	if err := c.checkNotSetAside(id); err != nil {
		return fmt.Errorf("create volume %s: %w", id, err)
	}
	return c.backends.checkUnclaimed(id)
}

// clearAttempt makes way for a volume where one of the same ID was not finished, or is being deleted. Content
// in the same backend is left to Backend.Create, which replaces it.
func (c *creation) clearAttempt(spec Spec, old record) error {
	if errors.Is(old.damage, ErrDamaged) {
		return fmt.Errorf("create volume %s: %w", spec.ID, old.damage)
	}
	if old.Spec.Backend == spec.Backend {
		return nil
	}

	backend := c.backends.byName[old.Spec.Backend]
	if backend == nil {
		return fmt.Errorf("create volume %s: an earlier attempt is in the way: %w", spec.ID, old.damage)
	}
	if err := backend.Destroy(spec.ID); err != nil {
		return fmt.Errorf("create volume %s: %w", spec.ID, err)
	}

	return backend.Commit()
}

// promise takes the bytes of a new volume out of what is free.
func (c *creation) promise(r record) error {
	err := c.index.promise(r.Spec.ID, r)
	if _, short := errors.AsType[*space.Shortage](err); short {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	if err != nil {
		return err
	}
	c.index.put(r.Spec.ID, r)
	return nil
}

// maker makes the content of a volume in a backend, and returns its Spec.
type maker func(Backend, Spec) (Spec, Origin, error)

func makeEmpty(b Backend, s Spec) (Spec, Origin, error) {
	origin, err := b.Create(s)
	return s, origin, err
}

// make creates the content of an intended volume. What it leaves when it fails is taken away, at the latest
// by the next Create or start.
func (c *creation) make(r record, content maker) (record, error) {
	id := r.Spec.ID
	backend := c.backends.byName[r.Spec.Backend]
	err := c.intend(backend, r)
	if err == nil {
		r.Spec, r.Origin, err = content(backend, r.Spec)
	}

	// What a copy keeps is known when it is there. Until somebody writes it takes no bytes.
	if err == nil && len(r.Spec.Keeps) > 0 {
		err = c.promise(r)
	}

	if err == nil {
		r.Phase = ready
		if err = c.records.Put(id, r); err == nil {
			return r, nil
		}
	}

	// Where this fails, too, the bytes stay promised until somebody has taken the rest away.
	if backend.Destroy(id) != nil || backend.Commit() != nil || c.records.Delete(id) != nil {
		return r, fmt.Errorf("%w (what it left is removed later)", err)
	}

	c.index.drop(id)
	return r, err
}

// intend has the record say making before the content exists, as it says ready when it does. That is for a
// killed process; a power loss may take it away before the volume, which is then a stray without data. A copy
// is on disk at once, and is not empty: its intent has to be there before it.
func (c *creation) intend(backend Backend, r record) error {
	if r.Spec.Source != "" {
		return c.records.Put(r.Spec.ID, r)
	}
	if b, ok := backend.(Traceless); ok && b.IsTraceless(r.Spec) {
		return nil
	}
	return c.records.Note(r.Spec.ID, r)
}

// copy is Create with the content of another volume, or of a snapshot.
func (c *creation) copy(ctx context.Context, r Request) (Volume, error) {
	if r.Name == "" || len(r.Name) > maxName {
		return Volume{}, fmt.Errorf("%w: name %q", ErrInvalid, r.Name)
	}

	unlock, err := c.lock(ctx, r.id())
	if err != nil {
		return Volume{}, err
	}
	defer unlock()

	// A repeated request succeeds although its source may be gone.
	if v, found, err := c.existing(r); found {
		return v, err
	}

	// Only a source that exists is waited for, and such a one waits for nobody: no two requests wait for each
	// other.
	if _, err := c.find(r.Source); err != nil {
		return Volume{}, fmt.Errorf("source: %w", err)
	}

	source, unlockSource, err := c.acquire(ctx, r.Source)
	if err != nil {
		return Volume{}, fmt.Errorf("source: %w", err)
	}
	defer unlockSource()

	spec, copier, err := c.specOfCopy(r, source.Spec)
	if err != nil {
		return Volume{}, err
	}

	return c.begin(spec, func(_ Backend, spec Spec) (Spec, Origin, error) {
		return copier.Copy(spec, source.Spec)
	})
}

func (c *creation) specOfCopy(r Request, source Spec) (Spec, Copier, error) {
	r, err := r.of(source)
	if err != nil {
		return Spec{}, nil, err
	}

	spec, err := c.backends.complete(r)
	if err != nil {
		return Spec{}, nil, err
	}

	copier, ok := c.backends.byName[spec.Backend].(Copier)
	if !ok {
		return Spec{}, nil, fmt.Errorf("%w: %s is of backend %s, which has no snapshots and clones",
			ErrInvalid, source.ID, source.Backend)
	}

	return spec, copier, nil
}

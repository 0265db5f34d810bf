package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
	if err := c.makeWay(spec); err != nil {
		return Volume{}, err
	}

	// The bytes are promised before anything is written: a full disk is not left with half a volume.
	intent := intentOf(spec)
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

// intentOf is the first record of a volume.
func intentOf(spec Spec) record {
	return record{
		Version: versionOf(spec),
		Phase:   making,
		Spec:    spec,
		Created: time.Now().UTC().Truncate(time.Second),
	}
}

// makeWay takes away what lies under the ID of a new volume, if a record says that it was never acknowledged.
func (c *creation) makeWay(spec Spec) error {
	if old, known := c.index.get(spec.ID); known {
		return c.clearAttempt(spec, old)
	}
	return c.checkUnclaimed(spec.ID)
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

// promise takes the bytes of new volumes out of what is free.
func (c *creation) promise(records ...record) error {
	err := c.index.promise(records...)
	if _, short := errors.AsType[*space.Shortage](err); short {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	if err != nil {
		return err
	}
	for _, r := range records {
		c.index.put(r.Spec.ID, r)
	}
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

	return r, c.undo(backend, id, err)
}

// undo takes away what a failed creation left. Where this fails, too, the bytes stay promised until somebody,
// the upkeep at the latest, has taken the rest away.
func (c *creation) undo(backend Backend, id string, cause error) error {
	err := backend.Destroy(id)
	if err == nil {
		err = backend.Commit()
	}
	if err == nil {
		err = c.records.Delete(id)
	}
	if err == nil {
		c.index.drop(id)
		return cause
	}

	c.index.damage(id, fmt.Errorf("%w: remove what was not finished: %s", ErrUnavailable, err.Error()))
	return fmt.Errorf("%w (what it left is removed later)", cause)
}

// intend has the record say making before the content exists, as it says ready when it does. That is for a
// killed process; a power loss may take it away before the volume, which is then a stray without data. A copy
// is on disk at once and is not empty, nor is what is being filled: its intent has to be there before it.
func (c *creation) intend(backend Backend, r record) error {
	if r.Spec.Source != "" || r.Spec.Imported != "" {
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

	source, unlockSource, err := c.acquireSource(ctx, r.Source)
	if err != nil {
		return Volume{}, err
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

// Together makes snapshots of several volumes, with what all of them have at one moment. When it fails, none
// is left. When the process is killed some may be: who calls it has written down their names.
func (s *Store) Together(ctx context.Context, requests []Request) ([]Volume, error) {
	return s.creation.together(ctx, requests)
}

func (c *creation) together(ctx context.Context, requests []Request) ([]Volume, error) {
	var held unlocks
	defer held.all()
	specs, sources, err := c.lockTogether(ctx, requests, &held)
	if err != nil {
		return nil, err
	}

	backend, err := c.grouperOf(specs)
	if err != nil {
		return nil, err
	}

	intents := make([]record, len(specs))
	for i := range specs {
		if err := c.makeWay(specs[i]); err != nil {
			return nil, err
		}
		// What they keep is promised to all of them before any is made.
		if specs[i].Keeps, err = backend.Keeps(sources[i]); err != nil {
			return nil, err
		}
		intents[i] = intentOf(specs[i])
	}
	if err := c.promise(intents...); err != nil {
		return nil, err
	}

	made, err := c.makeTogether(ctx, backend, intents, sources)
	if err != nil {
		for _, spec := range specs {
			err = c.undo(c.backends.byName[spec.Backend], spec.ID, err)
		}
		return nil, err
	}

	c.changed()
	volumes := make([]Volume, len(made))
	for i, r := range made {
		c.index.put(r.Spec.ID, r)
		volumes[i] = c.view(r)
	}
	return volumes, nil
}

// lockTogether locks new snapshots and then the volumes that they are of, and returns both. No two calls wait
// for each other: what one of them waits for comes later in the order of IDs than what it has.
func (c *creation) lockTogether(
	ctx context.Context,
	requests []Request,
	held *unlocks,
) (specs, sources []Spec, err error) {
	requests = slices.SortedFunc(slices.Values(requests), func(a, b Request) int {
		return cmp.Compare(a.Source, b.Source)
	})
	for i, r := range requests {
		if i > 0 && r.Source == requests[i-1].Source {
			return nil, nil, fmt.Errorf("%w: two snapshots of %s", ErrInvalid, r.Source)
		}
		unlock, err := c.lock(ctx, r.id())
		if err != nil {
			return nil, nil, err
		}
		*held = append(*held, unlock)
		if _, found, _ := c.existing(r); found {
			return nil, nil, fmt.Errorf("%w: snapshot %s", ErrConflict, r.id())
		}
	}

	for _, r := range requests {
		source, unlock, err := c.acquireSource(ctx, r.Source)
		if err != nil {
			return nil, nil, err
		}
		*held = append(*held, unlock)
		spec, _, err := c.specOfCopy(r, source.Spec)
		if err != nil {
			return nil, nil, err
		}
		specs, sources = append(specs, spec), append(sources, source.Spec)
	}

	return specs, sources, nil
}

// grouperOf returns the backend that holds all of the volumes; ErrInvalid if there is none.
func (c *creation) grouperOf(specs []Spec) (Grouper, error) {
	if len(specs) == 0 {
		return nil, fmt.Errorf("%w: snapshots of no volume", ErrInvalid)
	}
	for _, s := range specs {
		if s.Backend != specs[0].Backend {
			return nil, fmt.Errorf("%w: snapshots of backends %s and %s are not of one moment",
				ErrInvalid, specs[0].Backend, s.Backend)
		}
	}

	grouper, ok := c.backends.byName[specs[0].Backend].(Grouper)
	if !ok {
		return nil, fmt.Errorf("%w: backend %s has no snapshots of one moment", ErrInvalid, specs[0].Backend)
	}
	return grouper, nil
}

// makeTogether creates the content of intended snapshots.
func (c *creation) makeTogether(
	ctx context.Context,
	backend Grouper,
	intents []record,
	sources []Spec,
) ([]record, error) {
	if err := c.putAll(intents); err != nil {
		return nil, err
	}

	specs := make([]Spec, len(intents))
	for i, r := range intents {
		specs[i] = r.Spec
	}
	specs, origins, err := backend.CopyAll(ctx, specs, sources)
	if err != nil {
		return nil, err
	}

	made, now := slices.Clone(intents), time.Now().UTC().Truncate(time.Second)
	for i := range made {
		made[i].Spec, made[i].Origin, made[i].Created = specs[i], origins[i], now
	}
	if err := c.promise(made...); err != nil {
		return nil, err
	}

	for i := range made {
		made[i].Phase = ready
	}
	return made, c.putAll(made)
}

package volume

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/trivet-node/trivet/csi/space"
)

// Backend holds the bytes of volumes. All methods may be repeated; calls for one ID never overlap. What a
// backend can do beside this it says by the interfaces Checker, Enforcer, Limitable and others here, and by
// those of package publish.
type Backend interface {
	Inventory
	space.Backend

	// Complete fills in what the request left open. It may raise the size. What the backend cannot do is
	// ErrInvalid; so are mount options that no file system of it takes.
	Complete(s *Spec, options []string) error

	// Create makes an empty volume, in place of what an interrupted Create left.
	Create(Spec) (Origin, error)

	// Recover makes an acknowledged volume usable after a restart; ErrDamaged when its content is not there.
	// It returns the origin that the record is to have, and writes nothing where all is as it should be.
	Recover(Spec, Origin) (Origin, error)

	// Grow makes the volume as large as the Spec says.
	Grow(Spec) error

	// Destroy deletes the volume; ErrInUse if the backend knows that somebody uses it.
	Destroy(id string) error

	// Commit makes all finished calls of Destroy survive a power loss. It is also called when all volumes
	// are recovered.
	Commit() error
}

// Inventory is what a backend holds, whether or not there are records of it.
type Inventory interface {
	// List returns the IDs of all volumes.
	List() ([]string, error)

	// Empty reports whether a volume certainly holds no data; os.ErrNotExist if there is no such volume.
	Empty(id string) (bool, error)
}

// Checker is a Backend that can fail as a whole.
type Checker interface {
	// Check returns what is wrong with the backend, nil if nothing is. It is called every few seconds. With
	// idle set no volume of the backend is in use, so that it may do repairs that need this.
	Check(idle bool) error
}

// Inspector is a Backend that can look at all its volumes at once, cheaply: it is asked several times a
// minute, and there may be thousands.
type Inspector interface {
	Inspect() (Inspection, error)
}

// Inspection is what an Inspector has seen.
type Inspection struct {
	// Of returns what is wrong with the content of a volume: ErrLost if it was not there, nil if nothing is.
	Of func(Spec) error

	// Pool is what was looked at, as in Origin; "": all that the backend may have.
	Pool string

	// Part reports whether content is smaller than the volume, as while somebody copies what was lost to its
	// place; nil where a backend cannot tell.
	Part func(Spec) bool

	// Wear is what the device below has failed at, nil if at nothing.
	Wear error
}

// Surveyor is a Backend that recovers many volumes faster once it has looked at all of them together.
type Surveyor interface {
	// Survey is called before all volumes are recovered, and done when they are. In between nobody else uses
	// or changes them.
	Survey() (done func())
}

// Traceless is a Backend that can make volumes of which nothing is left but what is certainly empty, if its
// process is killed while it makes one: no record has to say before that one is being made.
type Traceless interface {
	IsTraceless(Spec) bool
}

// Copier is a Backend that has the content of a volume in another one at once, without copying it.
type Copier interface {
	// Copy is Create with the content that source has at this moment. It returns the Spec with what the copy
	// keeps of other volumes. What it has made survives a power loss.
	Copy(s, source Spec) (Spec, Origin, error)
}

// Grouper is a Copier that copies several volumes as they are at one moment.
type Grouper interface {
	Copier

	// Keeps returns what a copy of a volume would keep of others if it were made now, by ID.
	Keeps(source Spec) (map[string]int64, error)

	// CopyAll is Copy for several, each of the source at the same place in the other list, with what all of
	// them have at one moment. It fails, with ErrUnavailable, if there was none before long. When it fails
	// some may be there.
	CopyAll(ctx context.Context, specs, sources []Spec) ([]Spec, []Origin, error)
}

// Limitable is a Backend that has volumes whose input and output can be limited.
type Limitable interface {
	// CheckLimits returns ErrInvalid for a volume that shares its device with others: limits are a device's.
	CheckLimits(Spec) error
}

// Encrypting is a Backend that has encrypted volumes. Complete of any other need not look at that.
type Encrypting interface {
	// CheckEncryption returns ErrInvalid for a volume that cannot be encrypted as its Spec says.
	CheckEncryption(Spec) error

	// EraseKey erases what is left of a volume that is not there: its key file, if an earlier version of the
	// driver has deleted it.
	EraseKey(id string) error
}

// Enforcer is a Backend that a pod can lead past the size of its volume for a moment.
type Enforcer interface {
	// Enforce makes the size hold for what was done to a volume in use since the last call. It is called
	// every second.
	Enforce(Spec) error
}

// Keeper is a Backend that has something to do all the time.
type Keeper interface {
	// Keep does it until ctx ends.
	Keep(ctx context.Context)
}

// Origin is what a backend has to know again after a restart. It is part of the volume's record.
type Origin struct {
	Token uint64 `json:"token,omitempty"`
	Pool  string `json:"pool,omitempty"` // what holds the volume; "": not known, or the same for all
}

// backends are those that work on this node.
type backends struct {
	byName    map[string]Backend
	preferred []string // names, for requests that name none
}

func (b backends) candidates(r Request) []string {
	if r.Backend != "" {
		return []string{r.Backend}
	}
	return b.preferred
}

// complete makes the spec of a requested volume, for the first backend that can serve it.
func (b backends) complete(r Request) (Spec, error) {
	size, err := r.size()
	if err != nil {
		return Spec{}, err
	}
	if r.Name == "" || len(r.Name) > maxName || r.Access != Filesystem && r.Access != Block {
		return Spec{}, fmt.Errorf("%w: name %q, access %q", ErrInvalid, r.Name, r.Access)
	}

	var refused error
	for _, name := range b.candidates(r) {
		backend := b.byName[name]
		if backend == nil {
			refused = fmt.Errorf("%w: backend %q does not work on this node", ErrInvalid, name)
			continue
		}

		spec := r.spec(name, size)
		refused = backend.Complete(&spec, r.Options)
		if refused == nil {
			refused = errors.Join(b.checkLimits(spec), b.checkEncryption(spec))
		}
		if refused != nil {
			continue
		}

		if r.Limit > 0 && spec.Size > r.Limit {
			return Spec{}, fmt.Errorf("%w: backend %s needs at least %d bytes, the limit is %d",
				ErrSize, name, spec.Size, r.Limit)
		}

		return spec, nil
	}

	return Spec{}, refused
}

// checkLimits returns ErrInvalid for limits that a volume cannot have.
func (b backends) checkLimits(s Spec) error {
	if s.Limits == (Limits{}) {
		return nil
	}
	backend, ok := b.byName[s.Backend].(Limitable)
	if !ok {
		return fmt.Errorf("%w: backend %s cannot limit input and output", ErrInvalid, s.Backend)
	}
	return backend.CheckLimits(s)
}

// checkEncryption returns ErrInvalid for a volume that its backend would not encrypt.
func (b backends) checkEncryption(s Spec) error {
	if s.Encryption == "" {
		return nil
	}
	backend, ok := b.byName[s.Backend].(Encrypting)
	if !ok {
		return fmt.Errorf("%w: backend %s does not encrypt", ErrInvalid, s.Backend)
	}
	return backend.CheckEncryption(s)
}

// smallest makes the spec of the smallest volume that a request allows; ok is false when no backend can serve
// it. That all refuse its mount options is an error: no other node will take them either.
func (b backends) smallest(r Request) (spec Spec, ok bool, err error) {
	var refused error
	for _, name := range b.candidates(r) {
		backend := b.byName[name]
		if backend == nil {
			continue
		}

		spec := r.spec(name, granularity)
		err := backend.Complete(&spec, r.Options)
		if err == nil && b.checkEncryption(spec) != nil {
			continue
		}
		if err == nil {
			return spec, true, nil
		}
		if plain := r.spec(name, granularity); backend.Complete(&plain, nil) == nil {
			refused = err
		}
	}

	return Spec{}, false, refused
}

// checkUnclaimed refuses an ID under which a backend holds data without a record: it may be somebody's, and
// creating a volume begins with removing what is in its place.
func (b backends) checkUnclaimed(id string) error {
	for name, backend := range b.byName {
		empty, err := backend.Empty(id)
		switch {
		case err == nil && !empty:
			return fmt.Errorf("%w: backend %s has data of a volume %s that has no record; to discard it,"+
				" delete volume %s", ErrDamaged, name, id, id)
		case err == nil, errors.Is(err, os.ErrNotExist):
		case errors.Is(err, ErrUnavailable), errors.Is(err, ErrDamaged):
			// The backend does not work, so that it will not be the one that creates the volume.
		default:
			return fmt.Errorf("create volume %s: %w", id, err)
		}
	}

	return nil
}

// destroyUnclaimed deletes what backends hold under an ID without a record.
func (b backends) destroyUnclaimed(id string) error {
	for name, backend := range b.byName {
		_, err := backend.Empty(id)
		switch encrypting, ok := backend.(Encrypting); {
		case err == nil:
			err = errors.Join(backend.Destroy(id), backend.Commit())
		case !errors.Is(err, os.ErrNotExist):
		case ok:
			err = encrypting.EraseKey(id)
		default:
			err = nil
		}
		if err != nil {
			return fmt.Errorf("delete volume %s of backend %s: %w", id, name, err)
		}
	}

	return nil
}

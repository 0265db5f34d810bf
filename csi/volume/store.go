package volume

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/internal/durable"
)

// Config of a Store.
type Config struct {
	Dir      string             // of the records
	Records  *Records           // those in Dir, as Load has read them; nil: Open reads them
	Disk     space.Disk         // beneath all backends
	Backends map[string]Backend // those that work on this node, by name
	Default  []string           // names of backends in order of preference, for requests that name none
	Most     int64              // bytes that are promised to all volumes together; 0: as the disk allows

	// LookPeriod is how often it is looked whether volumes have their content; 0: twice a minute.
	LookPeriod time.Duration
}

// Records are the records of volumes as they were read.
type Records struct {
	store      *durable.Store[record]
	all        map[string]record // by ID
	unreadable []durable.Unreadable
}

// Load reads the records in a directory, beside which nobody else works on it. It needs no backend: those may
// be opened meanwhile.
func Load(dir string) (*Records, error) {
	store, err := durable.OpenStore[record](dir, false)
	if err != nil {
		return nil, fmt.Errorf("open volume records: %w", err)
	}
	r := &Records{store: store}
	if r.all, r.unreadable, err = store.List(); err != nil {
		return nil, fmt.Errorf("read volume records: %w", err)
	}
	return r, nil
}

// Has reports whether there is a record of a volume of a backend.
func (r *Records) Has(backend string) bool {
	return r.has(func(one record) bool { return one.Spec.Backend == backend })
}

// HasMade reports whether there is a record of a volume of a backend whose making has ended. Of others there
// may be nothing yet, when the driver was killed.
func (r *Records) HasMade(backend string) bool {
	return r.has(func(one record) bool { return one.Spec.Backend == backend && one.Phase != making })
}

func (r *Records) has(condition func(record) bool) bool {
	for _, one := range r.all {
		if condition(one) {
			return true
		}
	}
	return false
}

// Unreadable returns the records that could not be read, which are set aside.
func (r *Records) Unreadable() []durable.Unreadable { return r.unreadable }

// Store is the set of volumes of a node. It is safe for concurrent use; operations on different volumes do
// not wait for each other.
type Store struct {
	*catalog
	ledger   *space.Ledger
	creation *creation
	upkeep   *upkeep
}

// Open reads the records and puts right what a killed process or a reboot left: unfinished volumes are
// removed, ready ones recovered. Run has to be called for deletions to be finished.
func Open(cfg Config) (*Store, Report, error) {
	records := cfg.Records
	if records == nil {
		var err error
		if records, err = Load(cfg.Dir); err != nil {
			return nil, Report{}, err
		}
	}

	meters := map[string]space.Backend{}
	for name, b := range cfg.Backends {
		meters[name] = b
	}

	ledger := space.New(space.Config{Disk: cfg.Disk, Backends: meters, Most: cfg.Most})
	c := &catalog{
		dir:      cfg.Dir,
		backends: backends{byName: cfg.Backends, preferred: cfg.Default},
		records:  records.store,
		index:    newIndex(ledger),
		health:   newHealth(),
		changes:  make(chan struct{}, 1),
	}

	// No volume may be served before all promises are known, or a new one could take the bytes of an old one.
	report := recoverAll(c, records)

	s := &Store{
		catalog:  c,
		ledger:   ledger,
		creation: &creation{catalog: c},
		upkeep: &upkeep{
			catalog:    c,
			destroyed:  make(chan struct{}, 1),
			lookPeriod: cmp.Or(cfg.LookPeriod, defaultLookPeriod),
		},
	}

	s.upkeep.reap(context.Background())
	return s, report, nil
}

// Run finishes deletions, enforces sizes and checks backends until ctx ends, and returns when that work is
// done. It must not be called before all volumes in use are held.
func (s *Store) Run(ctx context.Context) { s.upkeep.run(ctx) }

// Get returns a ready volume. A snapshot is none.
func (s *Store) Get(id string) (Volume, error) {
	r, err := s.find(id)
	if err == nil && r.Spec.Snapshot {
		err = fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	if err != nil {
		return Volume{}, err
	}
	return s.view(r), nil
}

// Snapshot returns a ready snapshot.
func (s *Store) Snapshot(id string) (Volume, error) {
	r, err := s.find(id)
	if err == nil && !r.Spec.Snapshot {
		err = fmt.Errorf("%w: snapshot %s", ErrNotFound, id)
	}
	if err != nil {
		return Volume{}, err
	}
	return s.view(r), nil
}

// List returns up to limit ready volumes in the order of their IDs, beginning after the ID given (limit 0:
// all of them).
func (s *Store) List(after string, limit int) []Volume {
	return s.page(after, limit, func(s Spec) bool { return !s.Snapshot })
}

// Snapshots is List for the snapshots, of one volume if source is not "".
func (s *Store) Snapshots(source, after string, limit int) []Volume {
	return s.page(after, limit, func(s Spec) bool {
		return s.Snapshot && (source == "" || source == s.Source)
	})
}

func (s *Store) page(after string, limit int, isIn func(Spec) bool) []Volume {
	trouble := s.Trouble()
	return pageOf(s.index, nil, after, limit, func(r record) (v Volume, ok bool) {
		if ok = isIn(r.Spec); ok {
			v = viewOf(r, trouble[r.Spec.Backend])
		}
		return v, ok
	})
}

// Damaged returns the volumes and snapshots that cannot be used, in the order of their IDs.
func (s *Store) Damaged() []Volume { return s.views(s.index.ill()) }

// Counts are numbers of volumes and snapshots of a backend.
type Counts struct {
	Snapshots int64
	Kept      int64 // bytes that snapshots keep of their volumes
	Damaged   int64 // that cannot be used
	Stuck     int64 // whose creation or deletion has failed, and is tried again
}

// Counts returns how many there are of what, by backend.
func (s *Store) Counts() map[string]Counts {
	counts := s.index.counts()

	// All backends that work have some.
	for name := range s.backends.byName {
		if _, ok := counts[name]; !ok {
			counts[name] = Counts{}
		}
	}
	return counts
}

// Available returns how large, in bytes, the next volume of a request with these properties may be. A request
// that no backend can serve has 0; one whose mount options they all refuse is an error, as with Create. Its
// name and sizes are not looked at.
func (s *Store) Available(r Request) (int64, error) {
	smallest, ok, err := s.backends.smallest(r)
	if !ok {
		return 0, err
	}
	free, err := s.ledger.Available(smallest.Backend)
	if free < smallest.Size {
		free = 0
	}
	return free / granularity * granularity, err
}

// Lock keeps everybody else from working on a volume until unlock is called, once. There need be no such
// volume.
func (s *Store) Lock(ctx context.Context, id string) (unlock func(), err error) {
	return s.lock(ctx, id)
}

// Acquire is Lock for a volume that can be used, which it returns.
func (s *Store) Acquire(ctx context.Context, id string) (v Volume, unlock func(), err error) {
	r, unlock, err := s.acquire(ctx, id)
	if err == nil && r.Spec.Snapshot {
		unlock()
		err = fmt.Errorf("%w: %s is a snapshot", ErrNotFound, id)
	}
	if err != nil {
		return Volume{}, nil, err
	}
	return s.view(r), unlock, nil
}

// Hold says that a volume is in use: it is not deleted then, and its size is enforced. where is part of the
// error of those who try to delete it. The caller has locked the volume.
func (s *Store) Hold(id, where string) { s.index.hold(id, where) }

// Release undoes Hold. The caller has locked the volume.
func (s *Store) Release(id string) { s.index.release(id) }

// Space returns how much of each backend is promised and free.
func (s *Store) Space() ([]space.Use, error) { return s.ledger.Uses() }

// Trouble returns what is wrong with each backend that works on this node; nil: nothing.
func (s *Store) Trouble() map[string]error {
	out := map[string]error{}
	for name := range s.backends.byName {
		out[name] = s.health.of(name)
	}
	return out
}

// InUse returns the number of volumes in use.
func (s *Store) InUse() int { return len(s.index.held()) }

// Changes returns a channel that has a value when volumes were created, grown or deleted since it was read,
// or a backend failed or recovered. It is for one reader.
func (s *Store) Changes() <-chan struct{} { return s.changes }

// OnTrouble adds a function that is called with what is wrong with a backend, now and when it changes, and
// with nil when nothing is any more. It must not block.
func (s *Store) OnTrouble(f func(backend string, err error)) { s.health.listen(f) }

package volume

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/trivet-node/trivet/csi/mount"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/keylock"
)

// Config of a Service.
type Config struct {
	DataDir  string             // durable records, in volumes/
	StateDir string             // boot-scoped records, in staged/; best on a tmpfs
	Targets  *mount.Root        // the directory beneath which volumes may be staged and published
	Backends map[string]Backend // those that work on this node, by name
	Default  []string           // names of backends in order of preference for requests that name none
	Reserve  int64              // bytes of the disk that are never promised
	Most     int64              // bytes that are promised to all volumes together; 0: as the disk allows
}

// Service is the set of volumes of a node. It is safe for concurrent use; operations on different volumes do
// not wait for each other.
type Service struct {
	cfg     Config
	records *durable.Store[record]
	staged  *durable.Store[staging]
	locks   keylock.Locks[string] // per volume ID; held through each operation
	dead    chan struct{}         // wakes Run when volumes were destroyed

	// held while space is counted and promised, so that two volumes cannot be promised the same bytes
	ledger sync.Mutex

	mu     sync.Mutex // guards what follows; never held during I/O
	index  map[string]record
	ids    []string            // sorted, those of index
	sums   map[string]Promised // by backend, over index; Specs is not kept
	doomed map[string]bool     // those of index that are destroyed and wait for the commit
	stages map[string]staging
	wake   func() // called when the free space changed

	trouble   map[string]error // by backend, as the last Check said
	onTrouble []func(backend string, err error)
}

// Report is what Open found and put right.
type Report struct {
	Torn      []durable.Torn   // records that could not be read; set aside
	Unmade    []string         // volumes whose creation was cut short; removed
	Deleted   []string         // volumes whose deletion was cut short; removed
	Damaged   map[string]error // volumes that cannot be used
	Trouble   map[string]error // backends that could not be looked through or committed
	Unstaged  []string         // volumes that were in use before a reboot
	Strays    []string         // what no record knows: left alone if there may be data in it
	Recovered int              // usable volumes
}

// Open reads the records and puts right what a killed process or a reboot left: unfinished volumes go, ready
// ones come back.
func Open(cfg Config) (*Service, Report, error) {
	s := &Service{
		cfg:     cfg,
		dead:    make(chan struct{}, 1),
		index:   map[string]record{},
		sums:    map[string]Promised{},
		doomed:  map[string]bool{},
		stages:  map[string]staging{},
		wake:    func() {},
		trouble: map[string]error{},
	}

	report := Report{Damaged: map[string]error{}, Trouble: map[string]error{}}
	var err error
	if s.records, err = durable.OpenStore[record](filepath.Join(cfg.DataDir, "volumes"), false); err != nil {
		return nil, report, fmt.Errorf("open volume records: %w", err)
	}
	if s.staged, err = durable.OpenStore[staging](filepath.Join(cfg.StateDir, "staged"), true); err != nil {
		return nil, report, fmt.Errorf("open staging records: %w", err)
	}

	records, torn, err := s.records.List()
	if err != nil {
		return nil, report, fmt.Errorf("read volume records: %w", err)
	}

	report.Torn = torn
	for name, backend := range cfg.Backends {
		if err := backend.Check(false); err != nil {
			report.Trouble[name] = err
		}
	}

	s.recoverAll(records, &report)
	s.clearStrays(&report)
	for name, backend := range cfg.Backends {
		if err := backend.Commit(); err != nil {
			// what was recovered is recovered again by the next start
			report.Trouble[name] = err
		}
	}

	maps.Copy(s.trouble, report.Trouble)
	s.reap(context.Background())
	if err := s.restage(&report); err != nil {
		return nil, report, err
	}

	return s, report, nil
}

// reapPause gathers deletions: a commit of the backend holds up those who create and write at that moment.
const reapPause = 2 * time.Second

// Run finishes deletions in the background: the records of destroyed volumes go once the destruction is on
// disk. And it sees to it that sizes hold. It returns when ctx ends, with the work done.
func (s *Service) Run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()

	group.Go(func() { s.enforceUntil(ctx) })
	group.Go(func() { s.checkUntil(ctx) })
	for {
		select {
		case <-ctx.Done():
			s.reap(context.WithoutCancel(ctx))
			return
		case <-s.dead:
			select {
			case <-ctx.Done():
			case <-time.After(reapPause):
			}

			s.reap(context.WithoutCancel(ctx))
		}
	}
}

// reap forgets all destroyed volumes, with one commit for as many as there are.
func (s *Service) reap(ctx context.Context) {
	s.mu.Lock()
	doomed := map[string][]string{}
	for id := range s.doomed {
		backend := s.index[id].Spec.Backend
		doomed[backend] = append(doomed[backend], id)
	}

	s.mu.Unlock()
	for name, ids := range doomed {
		if s.cfg.Backends[name].Commit() != nil {
			// the records stay; the next deletion or start tries again
			continue
		}

		// side by side, so that they share their syncs
		inParallel(ids, func(id string) { s.forget(ctx, id) })
	}
}

// forget removes the record of a destroyed volume, unless a new one of the same name has begun meanwhile.
func (s *Service) forget(ctx context.Context, id string) {
	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return
	}
	defer unlock()
	if r, ok := s.peek(id); ok && r.Phase == deleting && s.records.Delete(id) == nil {
		s.drop(id)
	}
}

// OnChange sets the function that is called after volumes came, grew or went. It must not block.
func (s *Service) OnChange(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake = f
}

// OnTrouble adds a function that is told of what is wrong with a backend, now and later, and with nil that it
// is over. It must not block.
func (s *Service) OnTrouble(f func(backend string, err error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onTrouble = append(s.onTrouble, f)
	for backend, err := range s.trouble {
		if err != nil {
			f(backend, err)
		}
	}
}

// Get returns a ready volume.
func (s *Service) Get(id string) (Volume, error) {
	r, err := s.find(id)
	if err != nil {
		return Volume{}, err
	}
	return s.view(r), nil
}

// List returns up to limit ready volumes in the order of their IDs, beginning after the ID given (0: all of
// them).
func (s *Service) List(after string, limit int) []Volume {
	s.mu.Lock()
	i, found := slices.BinarySearch(s.ids, after)
	if found {
		i++
	}

	var records []record
	for ; i < len(s.ids) && (limit == 0 || len(records) < limit); i++ {
		if r := s.index[s.ids[i]]; r.Phase == ready {
			records = append(records, r)
		}
	}

	s.mu.Unlock()
	out := make([]Volume, len(records))
	for i, r := range records {
		out[i] = s.view(r)
	}

	return out
}

// InUse counts the staged volumes.
func (s *Service) InUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.stages)
}

func (s *Service) view(r record) Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, staged := s.stages[r.Spec.ID]
	v := Volume{Spec: r.Spec, Created: r.Created, Staged: staged}
	if r.damage != nil {
		v.Damage = r.damage.Error()
	}
	if err := s.trouble[r.Spec.Backend]; err != nil {
		v.Trouble = err.Error()
	}
	return v
}

// find returns the record of a ready volume.
func (s *Service) find(id string) (record, error) {
	if err := CheckID(id); err != nil {
		return record{}, err
	}

	r, ok := s.peek(id)
	if ok && r.Phase == ready {
		return r, nil
	}

	// With a record that was set aside it is there, and who asks has to learn the way to have it back.
	if err := s.wholeRecord(id); err != nil {
		return record{}, err
	}

	return record{}, fmt.Errorf("%w: %s", ErrNotFound, id)
}

// wholeRecord is an error if a record of the volume could not be read and was set aside.
func (s *Service) wholeRecord(id string) error {
	aside, err := s.records.Quarantined(id)
	if err != nil || len(aside) == 0 {
		return err
	}
	return fmt.Errorf("%w: volume %s has data, and its record %s could not be read; to have it back,"+
		" mend the record, move it to %s and restart the driver; to give it up, delete volume %s",
		ErrDamaged, id, aside[0], filepath.Join(s.cfg.DataDir, "volumes", id+".json"), id)
}

func (s *Service) peek(id string) (record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.index[id]
	return r, ok
}

func (s *Service) put(id string, r record) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if i, found := slices.BinarySearch(s.ids, id); !found {
		s.ids = slices.Insert(s.ids, i, id)
	} else {
		s.account(s.index[id], -1)
	}

	s.index[id] = r
	s.account(r, 1)
	delete(s.doomed, id)
	if r.Phase == deleting && r.damage == nil {
		s.doomed[id] = true
	}
}

func (s *Service) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, found := slices.BinarySearch(s.ids, id); found {
		s.ids = slices.Delete(s.ids, i, i+1)
		s.account(s.index[id], -1)
	}
	delete(s.index, id)
	delete(s.doomed, id)
}

func (s *Service) changed() {
	s.mu.Lock()
	wake := s.wake
	s.mu.Unlock()
	wake()
}

func (s *Service) now() time.Time { return time.Now().UTC().Truncate(time.Second) }

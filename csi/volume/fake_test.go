package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/trivet-node/trivet/csi/space"
)

const mib = 1 << 20

// fakeBackend keeps volumes in memory. It outlives a Store, as a disk does, and forgets what was not
// committed when the power fails (lose).
type fakeBackend struct {
	name  string
	limit int64  // bytes for all volumes
	block bool   // raw block volumes are served
	least int64  // bytes of the smallest volume
	knows string // mount option that is served

	// mu guards what follows.
	mu        sync.Mutex
	volumes   map[string]*fakeVolume
	destroyed map[string]*fakeVolume // not yet committed
	fail      map[string]error       // by operation
	calls     []string
	check     error
	idle      []bool // arguments of Check
	committed func() // what happens next when a Commit is done, once
}

type fakeVolume struct {
	size    int64
	written bool // there is data in it
}

func newFake(name string) *fakeBackend {
	return &fakeBackend{
		name:      name,
		limit:     1 << 30,
		volumes:   map[string]*fakeVolume{},
		destroyed: map[string]*fakeVolume{},
		fail:      map[string]error{},
	}
}

// FailOn makes an operation fail; a nil error ends that.
func (b *fakeBackend) FailOn(op string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail[op] = err
}

// String lists the volumes: "ID:SIZE" in MiB, with * if there is data.
func (b *fakeBackend) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []string
	for _, id := range slices.Sorted(maps.Keys(b.volumes)) {
		entry := fmt.Sprintf("%s:%d", id, b.volumes[id].size/mib)
		if b.volumes[id].written {
			entry += "*"
		}
		list = append(list, entry)
	}
	return strings.Join(list, " ")
}

// called notes a call and returns its error. mu is held.
func (b *fakeBackend) called(op, id string) error {
	b.calls = append(b.calls, strings.TrimSpace(op+" "+id))
	return b.fail[op]
}

func (b *fakeBackend) Complete(s *Spec, options []string) error {
	for _, option := range options {
		if option != b.knows {
			return fmt.Errorf("%w: mount option %q", ErrInvalid, option)
		}
	}

	if s.Access == Block && !b.block {
		return fmt.Errorf("%w: no raw block volumes", ErrInvalid)
	}
	if s.Access == Filesystem && s.FSType == "" {
		s.FSType = "fakefs"
	}

	s.Size = max(s.Size, b.least)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fail["Complete"]
}

func (b *fakeBackend) Create(s Spec) (Origin, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.called("Create", s.ID); err != nil {
		return Origin{}, err
	}
	b.volumes[s.ID] = &fakeVolume{size: s.Size}
	return Origin{Pool: b.name}, b.fail["Create after"]
}

// copier is a fakeBackend that has the content of a volume in another one at once.
type copier struct{ *fakeBackend }

func (c copier) Copy(s, source Spec) (Spec, Origin, error) {
	b := c.fakeBackend
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.called("Copy", s.ID); err != nil {
		return s, Origin{}, err
	}
	from := b.volumes[source.ID]
	b.volumes[s.ID] = &fakeVolume{size: s.Size, written: from.written}
	s.Keeps = map[string]int64{source.ID: source.Size}
	return s, Origin{Pool: b.name}, b.fail["Copy after"]
}

func (c copier) Keeps(source Spec) (map[string]int64, error) {
	return map[string]int64{source.ID: source.Size}, nil
}

func (c copier) CopyAll(_ context.Context, specs, sources []Spec) ([]Spec, []Origin, error) {
	made, origins := make([]Spec, len(specs)), make([]Origin, len(specs))
	for i := range specs {
		var err error
		if made[i], origins[i], err = c.Copy(specs[i], sources[i]); err != nil {
			return nil, nil, err
		}
	}
	return made, origins, nil
}

func (b *fakeBackend) Recover(s Spec, o Origin) (Origin, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.called("Recover", s.ID); err != nil {
		return o, err
	}
	if b.volumes[s.ID] == nil {
		return o, fmt.Errorf("%w: it is not there", ErrDamaged)
	}
	return Origin{Pool: b.name}, nil
}

func (b *fakeBackend) Grow(s Spec) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.called("Grow", s.ID); err != nil {
		return err
	}
	b.volumes[s.ID].size = s.Size
	return nil
}

func (b *fakeBackend) Destroy(id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.called("Destroy", id); err != nil {
		return err
	}
	if v := b.volumes[id]; v != nil {
		b.destroyed[id] = v
		delete(b.volumes, id)
	}
	return nil
}

func (b *fakeBackend) Commit() error {
	then, err := b.commit()
	if then != nil {
		then()
	}
	return err
}

func (b *fakeBackend) commit() (then func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.called("Commit", ""); err != nil {
		return nil, err
	}
	clear(b.destroyed)
	then, b.committed = b.committed, nil
	return then, nil
}

func (b *fakeBackend) List() ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.volumes)), b.called("List", "")
}

func (b *fakeBackend) Empty(id string) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fail["Empty"]; err != nil {
		return false, err
	}
	v := b.volumes[id]
	if v == nil {
		return false, os.ErrNotExist
	}
	return !v.written, nil
}

func (b *fakeBackend) Inspect() (Inspection, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	there, away, short := maps.Clone(b.volumes), b.fail["Of"], b.fail["Part"] != nil
	of := func(s Spec) error {
		if away == nil && there[s.ID] == nil {
			return fmt.Errorf("%w: it is not in %s", ErrLost, b.name)
		}
		return away
	}

	return Inspection{
		Of:   of,
		Pool: b.name,
		Part: func(Spec) bool { return short },
		Wear: b.fail["Wear"],
	}, b.called("Inspect", "")
}

// take takes a volume away behind the back of the Store; putBack undoes that.
func (b *fakeBackend) take(id string) (putBack func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.volumes[id]
	delete(b.volumes, id)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.volumes[id] = v
	}
}

func (b *fakeBackend) Capacity(space.Promised) (space.Capacity, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return space.Capacity{Limit: b.limit}, b.fail["Capacity"]
}

func (b *fakeBackend) Check(idle bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle = append(b.idle, idle)
	return b.check
}

func (b *fakeBackend) Enforce(s Spec) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.called("Enforce", s.ID)
}

func (b *fakeBackend) CheckLimits(s Spec) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.called("CheckLimits", s.ID)
}

// write puts data into a volume.
func (b *fakeBackend) write(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.volumes[id].written = true
}

// lose brings back what a power failure brings back: destroyed volumes that were not committed.
func (b *fakeBackend) lose() {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.Copy(b.volumes, b.destroyed)
	clear(b.destroyed)
}

// made counts the calls of an operation.
func (b *fakeBackend) made(call string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	count := 0
	for _, c := range b.calls {
		if c == call {
			count++
		}
	}
	return count
}

type fakeDisk int64

func (d fakeDisk) Free() (int64, error) { return int64(d), nil }

// fixture is a directory of records with two backends that outlive the Store.
type fixture struct {
	*Store
	t           *testing.T
	dir         string
	pool, files *fakeBackend
	report      Report // of the last start
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{
		t:     t,
		dir:   t.TempDir(),
		pool:  newFake("pool"),
		files: newFake("files"),
	}
	f.files.block, f.files.knows = true, "discard"
	f.restart()
	return f
}

// restart opens the store as after kill -9: what the one before had in memory is gone.
func (f *fixture) restart() Report {
	f.t.Helper()
	store, report, err := Open(Config{
		Dir:      f.dir,
		Disk:     fakeDisk(1 << 40),
		Backends: map[string]Backend{"pool": copier{f.pool}, "files": f.files},
		Default:  []string{"pool", "files"},
	})
	if err != nil {
		f.t.Fatal(err)
	}

	f.Store, f.report = store, report
	return report
}

func (f *fixture) create(r Request) Volume {
	f.t.Helper()
	if r.Access == "" {
		r.Access = Filesystem
	}
	v, err := f.Create(f.t.Context(), r)
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

func (f *fixture) record(id string) string { return f.dir + "/" + id + ".json" }

func (f *fixture) free(backend string) int64 {
	f.t.Helper()
	free, err := f.Available(Request{Backend: backend, Access: Filesystem})
	if err != nil {
		f.t.Fatal(err)
	}
	return free
}

// tear makes a record unreadable, and lose removes it.
func (f *fixture) tear(id string) {
	f.t.Helper()
	if err := os.Truncate(f.record(id), 9); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) lose(id string) {
	f.t.Helper()
	if err := os.Remove(f.record(id)); err != nil {
		f.t.Fatal(err)
	}
}

var errBroken = errors.New("broken")

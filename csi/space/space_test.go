package space_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/trivet-node/trivet/csi/space"
)

// disk has so many bytes free.
type disk int64

func (d disk) Free() (int64, error) { return int64(d), nil }

// backend has limit bytes to promise, of which written are on disk; with err set it cannot be measured.
type backend struct {
	limit, written int64
	err            error
}

func (b backend) Capacity(p space.Promised) (space.Capacity, error) {
	return space.Capacity{Limit: b.limit, Unwritten: max(0, p.Bytes-b.written)}, b.err
}

var errBroken = errors.New("broken")

var availableCases = []struct {
	name     string
	disk     disk
	most     int64
	pool     backend
	image    backend
	promises []space.Promise
	want     int64 // of the backend pool
	err      error
}{
	{
		name:  "nothing is promised",
		disk:  1000,
		pool:  backend{limit: 600},
		image: backend{limit: 9000},
		want:  600,
	},
	{
		name:  "the disk has less than the pool",
		disk:  300,
		pool:  backend{limit: 600},
		image: backend{limit: 9000},
		want:  300,
	},
	{
		name:     "what is promised counts whole, written or not",
		disk:     1000,
		pool:     backend{limit: 600, written: 100},
		image:    backend{limit: 9000},
		promises: []space.Promise{{ID: "a", Backend: "pool", Bytes: 200}},
		want:     400,
	},
	{
		name:     "what another backend has still to write is not free",
		disk:     500,
		pool:     backend{limit: 600},
		image:    backend{limit: 9000, written: 50},
		promises: []space.Promise{{ID: "a", Backend: "image", Bytes: 250}},
		want:     300,
	},
	{
		name:     "all backends together have a bound",
		disk:     1000,
		most:     500,
		pool:     backend{limit: 600},
		image:    backend{limit: 9000},
		promises: []space.Promise{{ID: "a", Backend: "image", Bytes: 250}},
		want:     250,
	},
	{
		name:     "a backend that cannot be measured has written nothing",
		disk:     500,
		pool:     backend{limit: 600},
		image:    backend{written: 250, err: errBroken},
		promises: []space.Promise{{ID: "a", Backend: "image", Bytes: 250}},
		want:     250,
	},
	{
		name:  "the backend itself cannot be measured",
		disk:  500,
		pool:  backend{err: errBroken},
		image: backend{},
		err:   errBroken,
	},
	{
		name:     "more is promised than there is",
		disk:     1000,
		pool:     backend{limit: 100, written: 200},
		image:    backend{},
		promises: []space.Promise{{ID: "a", Backend: "pool", Bytes: 200}},
		want:     -100,
	},
}

func TestAvailable(t *testing.T) {
	for _, c := range availableCases {
		t.Run(c.name, func(t *testing.T) {
			l := space.New(space.Config{
				Disk:     c.disk,
				Most:     c.most,
				Backends: map[string]space.Backend{"pool": c.pool, "image": c.image},
			})

			for _, p := range c.promises {
				l.Record(p)
			}

			got, err := l.Available("pool")
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("%d bytes, %v; want %d, %v", got, err, c.want, c.err)
			}
		})
	}
}

func newLedger(limit int64) *space.Ledger {
	return space.New(space.Config{
		Disk:     disk(1 << 40),
		Backends: map[string]space.Backend{"pool": backend{limit: limit}, "image": backend{limit: limit}},
	})
}

func TestPromises(t *testing.T) {
	type step struct {
		id, backend string
		bytes       int64
		short       string // the error; "": the promise is made
	}

	for _, c := range []struct {
		name  string
		steps []step
		want  int64 // what backend pool has afterwards
	}{
		{"to the last byte", []step{{"a", "pool", 60, ""}, {"b", "pool", 40, ""}}, 0},
		{
			"and not further",
			[]step{
				{"a", "pool", 60, ""},
				{"b", "pool", 41, "volume b needs 41 bytes more, backend pool has 40"},
			},
			40,
		},
		{"a repeated one costs nothing", []step{{"a", "pool", 60, ""}, {"a", "pool", 60, ""}}, 40},
		{
			"a larger one costs the difference",
			[]step{
				{"a", "pool", 60, ""},
				{"a", "pool", 90, ""},
				{"a", "pool", 101, "volume a needs 11 bytes more, backend pool has 10"},
			},
			10,
		},
		{"a smaller one frees the difference", []step{{"a", "pool", 60, ""}, {"a", "pool", 10, ""}}, 90},
		{"another backend has its own bytes", []step{{"a", "image", 60, ""}, {"a", "pool", 90, ""}}, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLedger(100)
			for i, s := range c.steps {
				err := l.Promise(space.Promise{ID: s.id, Backend: s.backend, Bytes: s.bytes})
				_, short := errors.AsType[*space.Shortage](err)
				if short != (s.short != "") || short && err.Error() != s.short {
					t.Errorf("step %d: %v, want %q", i, err, s.short)
				}
			}

			if got, err := l.Available("pool"); got != c.want || err != nil {
				t.Errorf("%d bytes are left, %v; want %d", got, err, c.want)
			}
		})
	}
}

func TestReleasedBytesAreFreeAgain(t *testing.T) {
	l := newLedger(100)
	l.Record(space.Promise{ID: "a", Backend: "pool", Bytes: 70})
	for range 2 {
		l.Release("a")
		if got, err := l.Available("pool"); got != 100 || err != nil {
			t.Errorf("%d bytes, %v", got, err)
		}
	}
}

func TestTheSameBytesAreNotPromisedTwice(t *testing.T) {
	l := newLedger(100)
	var group sync.WaitGroup
	made := make(chan string, 50)
	for i := range cap(made) {
		group.Go(func() {
			id := fmt.Sprint("v", i)
			if l.Promise(space.Promise{ID: id, Backend: "pool", Bytes: 30}) == nil {
				made <- id
			}
		})
	}

	group.Wait()
	if len(made) != 3 {
		t.Errorf("%d volumes of 30 bytes were promised out of 100", len(made))
	}
}

// witness keeps the promises that it was given.
type witness struct{ seen []space.Promise }

func (w *witness) Capacity(p space.Promised) (space.Capacity, error) {
	w.seen = p.Each()
	slices.SortFunc(w.seen, func(a, b space.Promise) int { return int(a.Bytes - b.Bytes) })
	if p.Count != int64(len(w.seen)) {
		return space.Capacity{}, fmt.Errorf("%d of %d promises", len(w.seen), p.Count)
	}
	return space.Capacity{Limit: 1 << 40}, nil
}

func TestBackendsSeeTheirOwnPromises(t *testing.T) {
	w := &witness{}
	l := space.New(space.Config{
		Disk:     disk(1 << 40),
		Backends: map[string]space.Backend{"pool": w, "image": backend{}},
	})

	a, b := space.Promise{
		ID:      "a",
		Backend: "pool",
		Bytes:   1,
	}, space.Promise{ID: "b", Backend: "pool", Bytes: 2}

	l.Record(a)
	l.Record(b)
	l.Record(space.Promise{ID: "c", Backend: "image", Bytes: 3})
	if _, err := l.Available("pool"); err != nil || !slices.Equal(w.seen, []space.Promise{a, b}) {
		t.Errorf("seen %v, %v", w.seen, err)
	}
}

func TestFileSystemKeepsItsReserve(t *testing.T) {
	dir := t.TempDir()
	all, err := space.FileSystem{Dir: dir}.Free()
	if err != nil {
		t.Fatal(err)
	}

	rest, err := space.FileSystem{Dir: dir, Reserve: all}.Free()
	if err != nil || rest > all/2 {
		t.Errorf("%d of %d bytes are left, %v", rest, all, err)
	}
	if _, err := (space.FileSystem{Dir: dir + "/none"}).Free(); err == nil {
		t.Error("a directory that is not there has space")
	}
}

func TestUsesAreWhatEachBackendHas(t *testing.T) {
	l := space.New(space.Config{
		Disk: disk(1000),
		Backends: map[string]space.Backend{
			"pool":   backend{limit: 600, written: 100},
			"image":  backend{limit: 9000},
			"broken": backend{err: errBroken},
		},
	})

	l.Record(space.Promise{ID: "a", Backend: "pool", Bytes: 300})
	l.Record(space.Promise{ID: "b", Backend: "image", Bytes: 200})

	uses, err := l.Uses()
	if err != nil {
		t.Fatal(err)
	}

	want := []space.Use{
		{Backend: "image", Volumes: 1, Promised: 200, Limit: 9000, Unwritten: 200, Free: 600},
		{Backend: "pool", Volumes: 1, Promised: 300, Limit: 600, Unwritten: 200, Free: 300},
	}
	if !slices.Equal(uses, want) {
		t.Errorf("%+v, want %+v", uses, want)
	}

	for _, use := range uses {
		if free, err := l.Available(use.Backend); err != nil || free != use.Free {
			t.Errorf("%s: available %d, %v, want %d", use.Backend, free, err, use.Free)
		}
	}
}

package volume

import (
	"context"
	"errors"
	"testing"
	"time"
)

// together asks for snapshots s-NAME of volumes.
func (f *fixture) together(of ...Volume) ([]Volume, error) {
	f.t.Helper()
	var requests []Request
	for _, v := range of {
		requests = append(requests, Request{Name: "s-" + v.Name, Source: v.ID, Snapshot: true})
	}
	return f.Together(f.t.Context(), requests)
}

func TestTogetherThereIsASnapshotOfEach(t *testing.T) {
	f := newFixture(t)
	a := f.create(Request{Name: "a", Required: 16 * mib})
	b := f.create(Request{Name: "b", Required: 16 * mib})
	f.pool.write(b.ID)

	made, err := f.together(b, a)
	if err != nil || len(made) != 2 {
		t.Fatalf("%v, %v", made, err)
	}
	f.restart()
	for _, v := range []Volume{a, b} {
		s, err := f.Snapshot(SnapshotID("s-" + v.Name))
		if err != nil || s.Source != v.ID || s.Damage != nil || s.Keeps[v.ID] != 16*mib {
			t.Errorf("snapshot of %s: %+v, %v", v.Name, s, err)
		}
	}

	if _, err := f.together(a, b); !errors.Is(err, ErrConflict) {
		t.Errorf("a second time: %v", err)
	}
}

func TestTogetherThereAreAllOrNone(t *testing.T) {
	f := newFixture(t)
	a := f.create(Request{Name: "a", Required: 16 * mib})
	b := f.create(Request{Name: "b", Required: 16 * mib})
	image := f.create(Request{Name: "image", Required: 16 * mib, Backend: "files"})
	before, free := f.pool.String(), f.free("pool")

	check := func(what string, want error, of ...Volume) {
		t.Helper()
		if _, err := f.together(of...); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		if got := f.pool.String(); got != before || f.free("pool") != free {
			t.Errorf("%s: pool %q, %d bytes are free; it was %q, %d", what, got, f.free("pool"), before, free)
		}
	}

	check("of none", ErrInvalid)
	check("twice of one", ErrInvalid, a, a)
	check("of two backends", ErrInvalid, a, image)
	check("of one without snapshots", ErrInvalid, image)
	check("of one that is not there", ErrNotFound, a, Volume{Spec: Spec{ID: "vol-none", Name: "none"}})

	f.pool.FailOn("Copy after", errBroken)
	check("the backend fails", errBroken, a, b)
	f.pool.FailOn("Copy after", nil)

	// There is room for one of them.
	f.pool.limit = 50 * mib
	free = f.free("pool")
	copies := func() int {
		return f.pool.made("Copy "+SnapshotID("s-a")) + f.pool.made("Copy "+SnapshotID("s-b"))
	}
	had := copies()
	check("no room", ErrFull, a, b)
	if copies() > had {
		t.Error("without room a snapshot was made")
	}
}

// Snapshots that were never acknowledged are gone after a restart, or it is known who has to delete them.
func TestTogetherCutShortIsTakenAway(t *testing.T) {
	f := newFixture(t)
	a := f.create(Request{Name: "a", Required: 16 * mib})
	b := f.create(Request{Name: "b", Required: 16 * mib})
	f.pool.FailOn("Copy after", errBroken)
	f.pool.FailOn("Destroy", errBroken)
	if _, err := f.together(a, b); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}

	f.pool.FailOn("Copy after", nil)
	f.pool.FailOn("Destroy", nil)
	if report := f.restart(); len(report.Unmade) != 2 || len(report.Strays) > 0 {
		t.Errorf("report %+v", report)
	}
	if _, err := f.together(a, b); err != nil {
		t.Error(err)
	}
}

// A volume that is being made from another one waits for that: who has that does not wait for the volume.
func TestTogetherWaitsForNoVolumeThatIsBeingMade(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	unlock, err := f.Lock(t.Context(), ID("c"))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = f.Together(ctx, []Request{
		{Name: "s-v", Source: v.ID, Snapshot: true},
		{Name: "s-c", Source: ID("c"), Snapshot: true},
	})
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("of a volume and its clone: %v", err)
	}
}

package volume

import (
	"errors"
	"testing"
)

// snapshot makes a snapshot of a volume.
func (f *fixture) snapshot(name string, of Volume) Volume {
	f.t.Helper()
	return f.create(Request{Name: name, Source: of.ID, Snapshot: true})
}

func TestSnapshotHasWhatItsSourceHad(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	f.pool.write(v.ID)
	free := f.free("pool")
	s := f.snapshot("s", v)
	if got := f.pool.String(); got != s.ID+":16* "+v.ID+":16*" {
		t.Errorf("pool %q", got)
	}
	if got := free - f.free("pool"); got != 16*mib {
		t.Errorf("it takes %d bytes", got)
	}

	f.restart()
	if got, err := f.Snapshot(s.ID); err != nil || got.Source != v.ID || got.Size != v.Size {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
	if got := free - f.free("pool"); got != 16*mib {
		t.Errorf("after a restart it takes %d bytes", got)
	}

	for range 2 {
		if err := f.Delete(t.Context(), s.ID); err != nil {
			t.Error(err)
		}
	}
	if got := f.free("pool"); got != free {
		t.Errorf("%d bytes are free, %d were", got, free)
	}
}

func TestSnapshotIsNoVolume(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "same", Required: 16 * mib})
	s := f.snapshot("same", v)
	if all := f.List("", 0); len(all) != 1 || all[0].ID != v.ID {
		t.Errorf("volumes %+v", all)
	}
	if all := f.Snapshots("", "", 0); len(all) != 1 || all[0].ID != s.ID {
		t.Errorf("snapshots %+v", all)
	}
	if of := f.Snapshots("another", "", 0); len(of) != 0 {
		t.Errorf("snapshots of another volume: %+v", of)
	}

	_, gotten := f.Get(s.ID)
	_, taken := f.Snapshot(v.ID)
	_, grown := f.Grow(t.Context(), s.ID, 32*mib, 0)
	_, _, used := f.Acquire(t.Context(), s.ID)
	for what, err := range map[string]error{
		"got":                  gotten,
		"a volume as snapshot": taken,
		"grown":                grown,
		"used":                 used,
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestCopyIsRepeatableWithoutItsSource(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	s := f.snapshot("s", v)
	clone := f.create(Request{Name: "c", Required: 32 * mib, Source: s.ID})
	if clone.Size != 32*mib || clone.Source != s.ID || clone.FSType != v.FSType {
		t.Errorf("clone %+v", clone)
	}
	for _, id := range []string{v.ID, s.ID} {
		if err := f.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}

	if again := f.snapshotAgain("s"); again != nil && !errors.Is(again, ErrNotFound) {
		t.Errorf("a snapshot of a volume that is gone: %v", again)
	}
	if again := f.create(Request{Name: "c", Required: 32 * mib, Source: s.ID}); again.ID != clone.ID {
		t.Errorf("again %+v", again)
	}
}

func (f *fixture) snapshotAgain(name string) error {
	_, err := f.Create(f.t.Context(), Request{Name: name, Source: ID("v"), Snapshot: true})
	return err
}

func TestCopyThatCannotBeIsRefused(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	image := f.create(Request{Name: "image", Required: 16 * mib, Backend: "files"})
	f.snapshot("s", v)
	of := func(name, source string, access Access) Request {
		return Request{Name: name, Source: source, Access: access}
	}

	smaller := of("x", v.ID, Filesystem)
	limited, elsewhere := smaller, smaller
	smaller.Required, limited.Limit, elsewhere.Backend = mib, mib, "files"
	for _, c := range []struct {
		name    string
		request Request
		want    error
	}{
		{"no source", of("x", "vol-none", Filesystem), ErrNotFound},
		{"not a name", of("", v.ID, Filesystem), ErrInvalid},
		{"smaller", smaller, ErrSize},
		{"limited", limited, ErrSize},
		{"other access", of("x", v.ID, Block), ErrInvalid},
		{"other backend", elsewhere, ErrInvalid},
		{"no copies there", Request{Name: "x", Source: image.ID, Snapshot: true}, ErrInvalid},
		{"of another volume", Request{Name: "s", Source: image.ID, Snapshot: true}, ErrConflict},
		{"of itself", of("x", ID("x"), Filesystem), ErrNotFound},
	} {
		if _, err := f.Create(t.Context(), c.request); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// A copy that was cut short was never acknowledged: there is nothing of it after a restart.
func TestCopyThatWasCutShortIsTakenAway(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	f.pool.write(v.ID)
	free := f.free("pool")
	f.pool.FailOn("Copy after", errBroken)
	f.pool.FailOn("Destroy", errBroken)
	if _, err := f.Create(t.Context(), Request{Name: "s", Source: v.ID, Snapshot: true}); err == nil {
		t.Fatal("it succeeded")
	}

	f.pool.FailOn("Copy after", nil)
	f.pool.FailOn("Destroy", nil)
	if report := f.restart(); len(report.Unmade) != 1 || len(report.Strays) > 0 {
		t.Errorf("report %+v", report)
	}
	if got := f.free("pool"); got != free || f.pool.String() != v.ID+":16*" {
		t.Errorf("%d bytes are free, %d were; pool %q", got, free, f.pool.String())
	}
}

// What copies keep is promised, or there is no copy. Several keep the same blocks.
func TestCopyNeedsRoomForWhatItKeeps(t *testing.T) {
	f := newFixture(t)
	f.pool.limit = 24 * mib
	v := f.create(Request{Name: "v", Required: 16 * mib})
	if _, err := f.Create(t.Context(), Request{
		Name:     "s",
		Source:   v.ID,
		Snapshot: true,
	}); !errors.Is(err, ErrFull) {
		t.Errorf("a snapshot: %v", err)
	}
	if got := f.pool.String(); got != v.ID+":16" {
		t.Errorf("pool %q", got)
	}

	f.pool.limit = 40 * mib
	f.snapshot("s", v)
	f.snapshot("t", v)
	if free := f.free("pool"); free != 8*mib {
		t.Errorf("beside a volume and its snapshots %d bytes are free, want %d", free, 8*mib)
	}
	f.restart()
	if free := f.free("pool"); free != 8*mib {
		t.Errorf("after a restart %d bytes are free, want %d", free, 8*mib)
	}
}

func TestWhatIsLentIsGoneAfterwards(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	f.pool.write(v.ID)
	free := f.free("pool")

	failed := errors.New("the reader has gone")
	for _, want := range []error{nil, failed} {
		err := f.Lend(t.Context(), v.ID, func(s Spec) error {
			if s.ID == v.ID || s.Source != v.ID || !s.Snapshot {
				t.Errorf("lent is %+v", s)
			}
			if got := free - f.free("pool"); got != 16*mib {
				t.Errorf("what is lent takes %d bytes", got)
			}
			if snapshots := f.Snapshots("", "", 0); len(snapshots) > 0 {
				t.Errorf("what is lent is listed: %+v", snapshots)
			}

			return want
		})
		if !errors.Is(err, want) {
			t.Errorf("lent: %v, want %v", err, want)
		}
		if got := f.pool.String(); got != v.ID+":16*" || f.free("pool") != free {
			t.Errorf("pool %q, %d bytes are free", got, f.free("pool"))
		}
	}
}

func TestWhatIsLentIsGoneAfterAKill(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	f.pool.write(v.ID)
	killed := errors.New("killed")
	f.pool.FailOn("Destroy", killed)
	if err := f.Lend(t.Context(), v.ID, func(Spec) error { return killed }); !errors.Is(err, killed) {
		t.Fatal(err)
	}

	f.pool.FailOn("Destroy", nil)
	if report := f.restart(); len(report.Unmade) != 1 || f.pool.String() != v.ID+":16*" {
		t.Errorf("%+v, pool %q", report, f.pool)
	}
}

// What could not be taken away when it came back is with the next look at its backend.
func TestWhatIsLentIsGoneWhenItsBackendWorksAgain(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	f.pool.write(v.ID)
	free := f.free("pool")
	for _, op := range []string{"Destroy", "Commit"} {
		f.pool.FailOn(op, errBroken)
		if err := f.Lend(t.Context(), v.ID, func(Spec) error { return nil }); err != nil {
			t.Error(err)
		}
		if got := free - f.free("pool"); got != 16*mib {
			t.Errorf("%s fails: what was lent takes %d bytes", op, got)
		}

		f.pool.FailOn(op, nil)
		f.upkeep.check(t.Context())
		if got := f.pool.String(); got != v.ID+":16*" || f.free("pool") != free || len(f.index.ids) != 1 {
			t.Errorf("%s: pool %q, %d bytes are free, records of %q", op, got, f.free("pool"), f.index.ids)
		}
	}
}

func TestVolumeWithoutSnapshotsIsLentItselfUnlessItIsInUse(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib, Backend: "files"})
	f.Hold(v.ID, "staged on /path")
	err := f.Lend(t.Context(), v.ID, func(Spec) error { t.Error("it was lent"); return nil })
	if !errors.Is(err, ErrInUse) {
		t.Error(err)
	}

	f.Release(v.ID)
	err = f.Lend(t.Context(), v.ID, func(s Spec) error {
		if _, free := f.locks.TryLock(v.ID); s.ID != v.ID || free {
			t.Errorf("lent is %+v, free %t", s, free)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := f.Delete(t.Context(), v.ID); err != nil {
		t.Error(err)
	}
}

package volume

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestRestartFindsAllVolumes(t *testing.T) {
	f := newFixture(t)
	a := f.create(Request{Name: "a", Required: 16 * mib})
	b := f.create(Request{Name: "b", Required: 32 * mib, Access: Block})
	report := f.restart()
	if report.Recovered != 2 || len(report.Damaged)+len(report.Unreadable)+len(report.Strays) > 0 {
		t.Errorf("report %+v", report)
	}

	for _, want := range []Volume{a, b} {
		if got, err := f.Get(want.ID); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}

	if free := f.free("pool"); free != 1008*mib {
		t.Errorf("%d bytes are free", free)
	}
}

// Whatever a killed process was doing, the next start finishes it or takes it back.
func TestEveryPhaseIsPutRight(t *testing.T) {
	for _, c := range []struct {
		name   string
		phase  phase
		exists bool
		want   func(Report) []string
	}{
		{"making, before the backend", making, false, func(r Report) []string { return r.Unmade }},
		{"making, after the backend", making, true, func(r Report) []string { return r.Unmade }},
		{"deleting, before the backend", deleting, true, func(r Report) []string { return r.Deleted }},
		{"deleting, after the backend", deleting, false, func(r Report) []string { return r.Deleted }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			v := f.create(Request{Name: "v", Required: 16 * mib})
			r, _ := f.index.get(v.ID)
			r.Phase = c.phase
			if err := f.records.Put(v.ID, r); err != nil {
				t.Fatal(err)
			}
			if !c.exists {
				delete(f.pool.volumes, v.ID)
			}

			report := f.restart()
			if !slices.Equal(c.want(report), []string{v.ID}) || report.Recovered+len(report.Damaged) > 0 {
				t.Errorf("report %+v", report)
			}
			if left, err := os.ReadDir(f.dir); len(left) > 0 || err != nil || f.pool.String() != "" {
				t.Errorf("left %v, %v, pool %q", left, err, f.pool)
			}
		})
	}
}

func TestMissingVolumeIsDamagedAndNotMadeAgain(t *testing.T) {
	f := newFixture(t)
	r := Request{Name: "v", Required: 16 * mib, Access: Filesystem}
	v := f.create(r)
	delete(f.pool.volumes, v.ID)
	if report := f.restart(); !errors.Is(report.Damaged[v.ID], ErrDamaged) {
		t.Errorf("report %+v", report)
	}
	if _, err := f.Create(t.Context(), r); !errors.Is(err, ErrDamaged) {
		t.Errorf("created again: %v", err)
	}
	if _, err := f.Grow(t.Context(), v.ID, 32*mib, 0); !errors.Is(err, ErrDamaged) {
		t.Errorf("grown: %v", err)
	}
	if err := f.Delete(t.Context(), v.ID); err != nil {
		t.Errorf("deleted: %v", err)
	}
}

func TestVolumesOfABackendThatDoesNotWorkAreKept(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Backend: "files"})
	store, report, err := Open(Config{
		Dir:      f.dir,
		Disk:     fakeDisk(1 << 40),
		Backends: map[string]Backend{"pool": f.pool},
		Default:  []string{"pool"},
	})
	if err != nil || !errors.Is(report.Damaged[v.ID], ErrDamaged) {
		t.Fatalf("report %+v, %v", report, err)
	}
	if err := store.Delete(t.Context(), v.ID); !errors.Is(err, ErrDamaged) {
		t.Errorf("deleted: %v", err)
	}

	f.restart()
	if now, err := f.Get(v.ID); err != nil || now.Damage != nil {
		t.Errorf("when it works again: %+v, %v", now, err)
	}
}

func TestRecordsOfTheFutureAreLeftAlone(t *testing.T) {
	for what, change := range map[string][2]string{
		"phase":   {`"phase":"ready"`, `"phase":"moving"`},
		"version": {`"version":1`, `"version":2`},
	} {
		f := newFixture(t)
		v := f.create(Request{Name: "v", Required: 16 * mib})
		f.pool.write(v.ID)
		whole, err := os.ReadFile(f.record(v.ID))
		if err != nil {
			t.Fatal(err)
		}

		future := strings.Replace(string(whole), change[0], change[1], 1)
		if err := os.WriteFile(f.record(v.ID), []byte(future), 0o600); err != nil {
			t.Fatal(err)
		}

		if report := f.restart(); !errors.Is(report.Damaged[v.ID], ErrDamaged) ||
			f.pool.String() != v.ID+":16*" {
			t.Errorf("%s: report %+v, pool %q", what, report, f.pool)
		}

		if now, err := os.ReadFile(f.record(v.ID)); err != nil || string(now) != future {
			t.Errorf("%s: the record is %s, %v", what, now, err)
		}
	}
}

func TestOldRecordLearnsItsPool(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v"})
	whole, err := os.ReadFile(f.record(v.ID))
	if err != nil {
		t.Fatal(err)
	}

	old := strings.Replace(string(whole), `,"pool":"pool"`, "", 1)
	if old == string(whole) {
		t.Fatalf("record %s", whole)
	}
	if err := os.WriteFile(f.record(v.ID), []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}

	f.restart()
	if now, err := os.ReadFile(f.record(v.ID)); err != nil || string(now) != string(whole) {
		t.Errorf("record %s, %v; want %s", now, err, whole)
	}
}

func TestStrayVolumesAreRemovedOnlyIfEmpty(t *testing.T) {
	f := newFixture(t)
	empty := f.create(Request{Name: "empty", Required: mib})
	full := f.create(Request{Name: "full", Required: mib})
	torn := f.create(Request{Name: "torn", Required: mib})
	f.pool.write(full.ID)
	f.lose(empty.ID)
	f.lose(full.ID)
	f.tear(torn.ID)
	want := []string{"pool " + full.ID, "pool " + torn.ID}
	slices.Sort(want)

	// The second start does not see the torn record any more.
	for range 2 {
		report := f.restart()
		if slices.Sort(report.Strays); !slices.Equal(report.Strays, want) {
			t.Errorf("strays %v, want %v", report.Strays, want)
		}
	}

	if _, err := f.pool.Empty(empty.ID); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the empty one: %v", err)
	}
}

func TestCreateNeverDestroysDataWithoutARecord(t *testing.T) {
	for how, spoil := range map[string]func(*fixture, string){
		"torn": (*fixture).tear,
		"lost": (*fixture).lose,
	} {
		t.Run(how, func(t *testing.T) {
			f := newFixture(t)
			r := Request{Name: "v", Required: 16 * mib, Access: Filesystem}
			v := f.create(r)
			f.pool.write(v.ID)
			whole, err := os.ReadFile(f.record(v.ID))
			if err != nil {
				t.Fatal(err)
			}

			spoil(f, v.ID)
			f.restart()
			_, err = f.Create(t.Context(), r)
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "delete volume "+v.ID) {
				t.Errorf("a volume of the same name: %v, want a refusal that names the way out", err)
			}

			if err := os.WriteFile(f.record(v.ID), whole, 0o600); err != nil {
				t.Fatal(err)
			}

			f.restart()
			if now, err := f.Get(v.ID); err != nil || now.Damage != nil || f.pool.String() != v.ID+":16*" {
				t.Errorf("with the record back: %+v, %v, pool %q", now, err, f.pool)
			}
		})
	}
}

func TestUseOfAVolumeWithATornRecordNamesTheWayOut(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v"})
	f.tear(v.ID)
	if report := f.restart(); len(report.Unreadable) != 1 {
		t.Errorf("report %+v", report)
	}
	_, _, err := f.Acquire(t.Context(), v.ID)
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "delete volume "+v.ID) {
		t.Errorf("error %v", err)
	}
}

func TestDeleteByIDDiscardsWhatHasNoRecord(t *testing.T) {
	f := newFixture(t)
	for _, backend := range []string{"pool", "files"} {
		r := Request{Name: "data " + backend, Backend: backend}
		v := f.create(r)
		map[string]*fakeBackend{"pool": f.pool, "files": f.files}[backend].write(v.ID)
		f.tear(v.ID)
		f.restart()
		if err := f.Delete(t.Context(), v.ID); err != nil {
			t.Fatal(err)
		}

		f.create(r)
	}

	if report := f.restart(); len(report.Strays)+len(report.Unreadable) > 0 || report.Recovered != 2 {
		t.Errorf("report %+v", report)
	}
}

// A backend that cannot be asked may have the volume.
func TestCreateAsksAllBackendsForData(t *testing.T) {
	f := newFixture(t)
	r := Request{Name: "v", Access: Filesystem}
	f.files.FailOn("Empty", errBroken)
	if _, err := f.Create(t.Context(), r); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	f.files.FailOn("Empty", ErrUnavailable)
	if _, err := f.Create(t.Context(), r); err != nil {
		t.Errorf("of a backend that does not work now: %v", err)
	}
}

func TestTroubleAtTheStartIsReported(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v"})
	f.files.FailOn("List", errBroken)
	f.pool.FailOn("Commit", errBroken)
	report := f.restart()
	if !errors.Is(report.Trouble["files"], errBroken) || !errors.Is(report.Trouble["pool"], errBroken) {
		t.Errorf("report %+v", report)
	}
	if now, err := f.Get(v.ID); err != nil || !errors.Is(now.Trouble, errBroken) {
		t.Errorf("volume %+v, %v", now, err)
	}

	f.files.FailOn("List", nil)
	f.pool.FailOn("Commit", nil)
	f.upkeep.check(t.Context())
	if now, err := f.Get(v.ID); err != nil || now.Trouble != nil {
		t.Errorf("afterwards: %+v, %v", now, err)
	}
}

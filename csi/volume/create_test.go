package volume

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestCreateIsRepeatable(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	f.pool.write(v.ID)
	again := f.create(Request{Name: "v", Required: 10 * mib, Limit: 20 * mib})
	if !reflect.DeepEqual(again, v) {
		t.Errorf("%+v, before %+v", again, v)
	}
	if got := f.pool.String(); got != v.ID+":16*" {
		t.Errorf("pool %q", got)
	}
}

func TestCreateRefusesWhatTheVolumeIsNot(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	for want, r := range map[string]Request{
		"has size 16777216, requested was 33554432 to 0": {Required: 32 * mib},
		"has size 16777216, requested was 1 to 1048576":  {Required: 1, Limit: mib},
		"has backend pool, requested was files":          {Backend: "files"},
		"has file system fakefs, requested was xfs":      {FSType: "xfs"},
		"has nocow true, requested was false":            {NoCOW: new(false)},
	} {
		r.Name, r.Access = "v", Filesystem
		_, err := f.Create(t.Context(), r)
		if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "volume "+v.ID+" "+want) {
			t.Errorf("%+v: %v, want %s", r, err, want)
		}
	}
}

// A backend that knows nothing of encryption would make a plain volume.
func TestNoBackendEncryptsThatDoesNotSaySo(t *testing.T) {
	f := newFixture(t)
	for _, backend := range []string{"", "pool", "files"} {
		r := Request{
			Name:       "v",
			Backend:    backend,
			Access:     Filesystem,
			Encryption: Fscrypt,
		}
		if v, err := f.Create(t.Context(), r); !errors.Is(err, ErrInvalid) {
			t.Errorf("backend %q made %+v, %v", backend, v, err)
		}
		if free, err := f.Available(r); free != 0 || err != nil {
			t.Errorf("backend %q has %d bytes for it, %v", backend, free, err)
		}
	}
	if got := f.pool.String() + f.files.String(); got != "" {
		t.Errorf("made were %q", got)
	}
}

func TestBackendIsTheFirstThatServes(t *testing.T) {
	f := newFixture(t)
	f.files.least = 8 * mib
	for _, c := range []struct {
		request Request
		want    string
		err     error
	}{
		{Request{Name: "any", Access: Filesystem}, "pool", nil},
		{Request{Name: "raw", Access: Block}, "files", nil},
		{Request{Name: "option", Access: Filesystem, Options: []string{"discard"}}, "files", nil},
		{Request{Name: "named", Access: Filesystem, Backend: "files"}, "files", nil},
		{Request{Name: "unknown option", Access: Filesystem, Options: []string{"x"}}, "", ErrInvalid},
		{Request{Name: "unknown backend", Access: Filesystem, Backend: "tape"}, "", ErrInvalid},
		{Request{
			Name:    "small",
			Access:  Filesystem,
			Backend: "files",
			Limit:   mib,
		}, "", ErrSize},
		{Request{Name: "", Access: Filesystem}, "", ErrInvalid},
		{Request{Name: "no access"}, "", ErrInvalid},
	} {
		if c.request.Limit == 0 {
			c.request.Required = mib
		}

		v, err := f.Create(t.Context(), c.request)
		if v.Backend != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: backend %q, %v", c.request.Name, v.Backend, err)
		}
	}
}

// Who names no backend gets one that works now, who names one waits for it.
func TestBackendThatDoesNotWorkNowIsPassedOverUnlessItIsNamed(t *testing.T) {
	f := newFixture(t)
	f.pool.FailOn("Complete", ErrUnavailable)
	r := Request{Name: "any", Required: mib, Access: Filesystem}
	if v, err := f.Create(t.Context(), r); err != nil || v.Backend != "files" {
		t.Errorf("backend %q, %v", v.Backend, err)
	}
	r.Name, r.Backend = "named", "pool"
	if _, err := f.Create(t.Context(), r); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func TestAvailable(t *testing.T) {
	f := newFixture(t)
	f.files.least = 300 * mib
	f.create(Request{Name: "v", Required: 800 * mib, Backend: "files"})
	for _, c := range []struct {
		name    string
		request Request
		want    int64
		err     error
	}{
		{"of the preferred backend", Request{Access: Filesystem}, 1024 * mib, nil},
		{"less than the smallest volume", Request{Access: Filesystem, Backend: "files"}, 0, nil},
		{"nobody serves it", Request{Access: Block, Backend: "pool"}, 0, nil},
		{"no such backend", Request{Access: Filesystem, Backend: "tape"}, 0, nil},
		{"an option that nobody serves", Request{Access: Filesystem, Options: []string{"x"}}, 0, ErrInvalid},
	} {
		if free, err := f.Available(c.request); free != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %d bytes, %v", c.name, free, err)
		}
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	for _, op := range []string{"Create", "Create after"} {
		f := newFixture(t)
		f.pool.FailOn(op, errBroken)
		r := Request{Name: "v", Required: 16 * mib, Access: Filesystem}
		if _, err := f.Create(t.Context(), r); !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", op, err)
		}
		if left, err := os.ReadDir(f.dir); len(left) > 0 || err != nil || f.pool.String() != "" {
			t.Errorf("%s: left %v, %v, pool %q", op, left, err, f.pool)
		}
		if free := f.free("pool"); free != 1024*mib {
			t.Errorf("%s: %d bytes are free", op, free)
		}

		f.pool.FailOn(op, nil)
		f.create(r)
	}
}

// What cannot be taken away either counts until somebody has.
func TestFailedCreateThatCannotBeUndoneStaysPromised(t *testing.T) {
	f := newFixture(t)
	f.pool.FailOn("Create after", errBroken)
	f.pool.FailOn("Destroy", errBroken)
	r := Request{Name: "v", Required: 16 * mib, Access: Filesystem}
	if _, err := f.Create(t.Context(), r); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	if free := f.free("pool"); free != 1008*mib {
		t.Errorf("%d bytes are free", free)
	}
	if _, err := f.Get(ID("v")); !errors.Is(err, ErrNotFound) {
		t.Errorf("it can be seen: %v", err)
	}

	f.pool.FailOn("Create after", nil)
	f.pool.FailOn("Destroy", nil)
	if report := f.restart(); !slices.Equal(report.Unmade, []string{ID("v")}) || f.pool.String() != "" {
		t.Errorf("report %+v, pool %q", report, f.pool)
	}

	f.create(r)
}

// An attempt with another backend is cleared away before the next one.
func TestAttemptMayGoOnInAnotherBackend(t *testing.T) {
	f := newFixture(t)
	f.pool.FailOn("Create after", errBroken)
	f.pool.FailOn("Destroy", errBroken)
	r := Request{
		Name:     "v",
		Required: 16 * mib,
		Access:   Filesystem,
		Backend:  "pool",
	}
	if _, err := f.Create(t.Context(), r); err == nil {
		t.Fatal("created")
	}

	f.pool.FailOn("Destroy", nil)
	r.Backend = "files"
	v := f.create(r)
	if f.pool.String() != "" || f.files.String() != v.ID+":16" {
		t.Errorf("pool %q, files %q", f.pool, f.files)
	}
	if free := f.free("pool"); free != 1024*mib {
		t.Errorf("the pool has %d bytes", free)
	}
}

func TestTwoRequestsForTheLastBytes(t *testing.T) {
	f := newFixture(t)
	var group sync.WaitGroup
	results := make(chan error, 8)
	for i := range cap(results) {
		group.Go(func() {
			_, err := f.Create(t.Context(), Request{
				Name:     fmt.Sprint("v", i),
				Required: 700 * mib,
				Backend:  "pool",
				Access:   Filesystem,
			})

			results <- err
		})
	}

	group.Wait()
	made := 0
	for range cap(results) {
		err := <-results
		if err == nil {
			made++
		} else if !errors.Is(err, ErrFull) {
			t.Error(err)
		}
	}

	if made != 1 {
		t.Errorf("%d volumes of 700 MiB were made of 1 GiB", made)
	}
}

func TestFillMakesAWholeVolumeOrNone(t *testing.T) {
	f := newFixture(t)
	r := Request{
		Name:     "v",
		Required: 16 * mib,
		Access:   Filesystem,
		Imported: "stream",
	}
	cut := errors.New("the stream ends")
	if _, err := f.Fill(t.Context(), r, func(Spec) error { return cut }); !errors.Is(err, cut) {
		t.Error(err)
	}
	if got := f.pool.String(); got != "" || len(f.restart().Unmade) > 0 {
		t.Errorf("pool %q", got)
	}

	for i := range 2 {
		v, err := f.Fill(t.Context(), r, func(s Spec) error {
			if i > 0 {
				t.Error("it is filled again")
			}
			if _, err := f.Get(s.ID); !errors.Is(err, ErrNotFound) {
				t.Errorf("it is there before it is filled: %v", err)
			}

			f.pool.write(s.ID)
			return nil
		})
		if err != nil || v.Imported != "stream" {
			t.Errorf("%+v, %v", v, err)
		}
	}

	nameless, snapshot, copied := r, r, r
	nameless.Imported, snapshot.Snapshot, copied.Source = "", true, ID("w")
	for _, bad := range []Request{nameless, snapshot, copied} {
		if _, err := f.Fill(t.Context(), bad, func(Spec) error { return nil }); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}

	r.Imported = "another"
	_, err := f.Fill(t.Context(), r, func(Spec) error { return nil })
	if !errors.Is(err, ErrConflict) {
		t.Error(err)
	}
}

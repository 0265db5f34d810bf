package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestCreateIsRepeatable(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	f.pool.write(v.ID)
	if again := f.create(Request{Name: "v", Required: 10 * mib, Limit: 20 * mib}); again != v {
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

func TestGrow(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	for _, c := range []struct {
		required, limit int64
		size            int64 // afterwards, in MiB
		err             error
	}{
		{10 * mib, 0, 16, nil},
		{20*mib - 1, 0, 20, nil},
		{10 * mib, 12 * mib, 20, ErrSize},
		{1 << 40, 0, 20, ErrSize},
		{-1, 0, 20, nil},
		{1024 * mib, 0, 1024, nil},
	} {
		grown, err := f.Grow(t.Context(), v.ID, c.required, c.limit)
		if !errors.Is(err, c.err) || err == nil && grown.Size != c.size*mib {
			t.Errorf("to %d at most %d: %d bytes, %v", c.required, c.limit, grown.Size, err)
		}
		if got := f.pool.String(); got != fmt.Sprintf("%s:%d", v.ID, c.size) {
			t.Errorf("to %d at most %d: pool %q", c.required, c.limit, got)
		}
	}

	if _, err := f.Grow(t.Context(), "none", mib, 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("growing what is not there: %v", err)
	}
}

func TestFailedGrowthGivesItsBytesBack(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	f.pool.FailOn("Grow", errBroken)
	if _, err := f.Grow(t.Context(), v.ID, 512*mib, 0); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	if free := f.free("pool"); free != 1008*mib {
		t.Errorf("%d bytes are free", free)
	}

	f.restart()
	if now, err := f.Get(v.ID); err != nil || now.Size != v.Size {
		t.Errorf("after a restart %+v, %v", now, err)
	}
}

// Cut short after its record was written, a growth is finished by a repetition.
func TestGrowthIsFinishedByARepetition(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	if _, err := f.Grow(t.Context(), v.ID, 32*mib, 0); err != nil {
		t.Fatal(err)
	}
	f.pool.volumes[v.ID].size = 16 * mib
	f.restart()
	if _, err := f.Grow(t.Context(), v.ID, 32*mib, 0); err != nil || f.pool.String() != v.ID+":32" {
		t.Errorf("pool %q, %v", f.pool, err)
	}
}

func TestDeleteIsRepeatable(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	for range 2 {
		if err := f.Delete(t.Context(), v.ID); err != nil {
			t.Fatal(err)
		}
		if free := f.free("pool"); free != 1024*mib {
			t.Errorf("%d bytes are free", free)
		}
		if _, err := f.Get(v.ID); !errors.Is(err, ErrNotFound) || len(f.List("", 0)) > 0 {
			t.Errorf("it can be seen: %v", err)
		}
	}

	if err := f.Delete(t.Context(), "../x"); !errors.Is(err, ErrInvalid) {
		t.Errorf("an ID that cannot be: %v", err)
	}
}

func TestVolumeInUseIsNotDeleted(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	f.Hold(v.ID, "staged on /stage")
	err := f.Delete(t.Context(), v.ID)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "staged on /stage") || f.InUse() != 1 {
		t.Errorf("held: %v", err)
	}

	f.Release(v.ID)

	// The backend may know more than who holds it.
	f.pool.FailOn("Destroy", fmt.Errorf("%w: mounted", ErrInUse))
	if err := f.Delete(t.Context(), v.ID); !errors.Is(err, ErrInUse) {
		t.Errorf("mounted: %v", err)
	}
	if now, err := f.Get(v.ID); err != nil || now != v {
		t.Errorf("it is %+v, %v", now, err)
	}

	f.pool.FailOn("Destroy", nil)
	if err := f.Delete(t.Context(), v.ID); err != nil || f.InUse() != 0 {
		t.Errorf("released: %v", err)
	}
}

func TestFailedDeletionCountsUntilItSucceeds(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	f.pool.FailOn("Destroy", errBroken)
	if err := f.Delete(t.Context(), v.ID); !errors.Is(err, errBroken) || f.free("pool") != 1008*mib {
		t.Errorf("%v, %d bytes are free", err, f.free("pool"))
	}
	f.pool.FailOn("Destroy", nil)
	if err := f.Delete(t.Context(), v.ID); err != nil || f.free("pool") != 1024*mib {
		t.Errorf("%v, %d bytes are free", err, f.free("pool"))
	}
}

func TestListGivesEachVolumeOnce(t *testing.T) {
	f := newFixture(t)
	for i := range 25 {
		f.create(Request{Name: fmt.Sprint("v", i), Required: mib})
	}

	var ids []string
	for after := ""; ; after = ids[len(ids)-1] {
		page := f.List(after, 10)
		for _, v := range page {
			ids = append(ids, v.ID)
		}

		if len(page) < 10 {
			break
		}
	}

	if len(ids) != 25 || !slices.IsSorted(ids) || len(slices.Compact(ids)) != 25 {
		t.Errorf("listed %d: %v", len(ids), ids)
	}
}

func TestChangesAreTold(t *testing.T) {
	f := newFixture(t)
	changed := func() bool {
		select {
		case <-f.Changes():
			return true
		default:
			return false
		}
	}

	v := f.create(Request{Name: "v", Required: mib})
	if !changed() || changed() {
		t.Error("of a creation")
	}
	if _, err := f.Grow(t.Context(), v.ID, 2*mib, 0); err != nil || !changed() {
		t.Errorf("of a growth: %v", err)
	}
	if err := f.Delete(t.Context(), v.ID); err != nil || !changed() {
		t.Errorf("of a deletion: %v", err)
	}
}

// run runs a store in a bubble of time until the test's function returns.
func (f *fixture) run(during func()) {
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan struct{})
	go func() {
		f.Run(ctx)
		close(done)
	}()
	during()
	cancel()
	<-done
}

func TestRecordsGoAfterOneCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var ids []string
		for i := range 20 {
			ids = append(ids, f.create(Request{Name: fmt.Sprint("v", i), Required: mib}).ID)
		}

		before := f.pool.made("Commit")
		f.run(func() {
			for _, id := range ids {
				if err := f.Delete(t.Context(), id); err != nil {
					t.Error(err)
				}
			}

			time.Sleep(2 * reapPause)
			synctest.Wait()
			if left, err := os.ReadDir(f.dir); len(left) > 0 || err != nil {
				t.Errorf("left %v, %v", left, err)
			}
		})
		if n := f.pool.made("Commit") - before; n != 1 {
			t.Errorf("%d commits for 20 deletions", n)
		}
	})
}

// A record stays until the deletion is on disk: otherwise a power failure would bring the volume back as one
// that nobody knows.
func TestDeletionOutlivesAPowerFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		v := f.create(Request{Name: "v", Required: mib})
		f.pool.write(v.ID)
		f.pool.FailOn("Commit", errBroken)
		f.run(func() {
			if err := f.Delete(t.Context(), v.ID); err != nil {
				t.Fatal(err)
			}

			time.Sleep(2 * reapPause)
		})

		f.pool.FailOn("Commit", nil)
		f.pool.lose()
		if report := f.restart(); !slices.Equal(report.Deleted, []string{v.ID}) || f.pool.String() != "" {
			t.Errorf("report %+v, pool %q", report, f.pool)
		}
	})
}

func TestSizesOfVolumesInUseAreEnforced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		used := f.create(Request{Name: "used", Required: mib})
		unused := f.create(Request{Name: "unused", Required: mib})
		f.Hold(used.ID, "staged")
		f.run(func() { time.Sleep(10*enforcePeriod + enforcePeriod/2) })
		if n := f.pool.made("Enforce " + used.ID); n != 11 {
			t.Errorf("enforced %d times in 10 s", n)
		}
		if f.pool.made("Enforce "+unused.ID) > 0 {
			t.Error("a volume that is not in use is looked at")
		}
	})
}

func TestVolumesComeBackWithTheirBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		v := f.create(Request{Name: "v"})
		down := fmt.Errorf("%w: disk is away", ErrUnavailable)
		f.pool.check = down
		f.pool.FailOn("Recover", down)
		if report := f.restart(); report.Trouble["pool"] == nil || report.Damaged[v.ID] == nil {
			t.Errorf("report %+v", report)
		}

		var heard []error
		f.OnTrouble(func(_ string, err error) { heard = append(heard, err) })
		if _, _, err := f.Acquire(t.Context(), v.ID); !errors.Is(err, ErrUnavailable) {
			t.Errorf("used: %v", err)
		}

		f.run(func() {
			time.Sleep(3 * checkPeriod)
			synctest.Wait()
			f.pool.mu.Lock()
			f.pool.check = nil
			f.pool.mu.Unlock()
			f.pool.FailOn("Recover", nil)
			time.Sleep(2 * checkPeriod)
			synctest.Wait()
		})
		if now, err := f.Get(v.ID); err != nil || now.Damage != nil || now.Trouble != nil {
			t.Errorf("it is %+v, %v", now, err)
		}
		if len(heard) != 2 || !errors.Is(heard[0], ErrUnavailable) || heard[1] != nil {
			t.Errorf("heard %v", heard)
		}
	})
}

func TestBackendIsIdleWithoutVolumesInUse(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Backend: "files"})
	for _, held := range []bool{false, true} {
		if held {
			f.Hold(v.ID, "staged")
		}

		f.check(t.Context())
		pool, files := f.pool.idle[len(f.pool.idle)-1], f.files.idle[len(f.files.idle)-1]
		if !pool || files == held {
			t.Errorf("held %t: pool idle %t, files idle %t", held, pool, files)
		}
	}
}

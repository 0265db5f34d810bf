package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

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

// While deletions are committed a volume comes again under the name of one of them, and is deleted, too. Its
// own deletion is in no commit yet.
func TestVolumeThatIsDeletedTwiceKeepsItsRecordUntilTheSecondCommit(t *testing.T) {
	for what, destroying := range map[string]error{"destroyed": nil, "not destroyed": errBroken} {
		t.Run(what, func(t *testing.T) {
			f := newFixture(t)
			request := Request{Name: "v", Required: mib}
			v := f.create(request)
			if err := f.Delete(t.Context(), v.ID); err != nil {
				t.Fatal(err)
			}

			f.pool.committed = func() {
				f.create(request)
				f.pool.write(v.ID)
				f.pool.FailOn("Destroy", destroying)
				if err := f.Delete(t.Context(), v.ID); !errors.Is(err, destroying) {
					t.Error(err)
				}
			}
			f.upkeep.reap(t.Context())

			f.pool.FailOn("Destroy", nil)
			f.pool.lose()
			report := f.restart()
			if !slices.Equal(report.Deleted, []string{v.ID}) || f.pool.String() != "" {
				t.Errorf("after a power failure: report %+v, pool %q", report, f.pool)
			}
		})
	}
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

		f.upkeep.check(t.Context())
		pool, files := f.pool.idle[len(f.pool.idle)-1], f.files.idle[len(f.files.idle)-1]
		if !pool || files == held {
			t.Errorf("held %t: pool idle %t, files idle %t", held, pool, files)
		}
	}
}

package volume

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// lookOnce has a Store look at its volumes, as it does twice a minute.
func (f *fixture) lookOnce() { f.upkeep.look(f.t.Context()) }

func (f *fixture) damageOf(id string) error {
	f.t.Helper()
	v, err := f.Get(id)
	if err != nil {
		f.t.Fatal(err)
	}
	return v.Damage
}

func TestContentThatGoesWhileTheDriverRunsIsMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		lost := f.create(Request{Name: "lost", Required: mib})
		kept := f.create(Request{Name: "kept", Required: mib})
		<-f.Changes()

		f.run(func() {
			putBack := f.pool.take(lost.ID)
			time.Sleep(time.Minute)
			synctest.Wait()
			if err := f.damageOf(lost.ID); !errors.Is(err, ErrLost) {
				t.Errorf("a minute after its content went: %v", err)
			}
			if _, _, err := f.Acquire(t.Context(), lost.ID); !errors.Is(err, ErrDamaged) {
				t.Errorf("used: %v", err)
			}
			if ill := f.Damaged(); len(ill) != 1 || ill[0].ID != lost.ID || f.damageOf(kept.ID) != nil {
				t.Errorf("damaged: %+v", ill)
			}
			<-f.Changes()

			putBack()
			time.Sleep(time.Minute)
			synctest.Wait()
			if err := f.damageOf(lost.ID); err != nil || len(f.Damaged()) > 0 {
				t.Errorf("a minute after it was back: %v, %v", err, f.Damaged())
			}
			<-f.Changes()
		})
	})
}

// Recover makes a volume again that a power loss took. What was taken from a driver that runs it is not.
func TestLostVolumeIsNotReplacedWhenItsBackendHeals(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: mib})
	f.pool.take(v.ID)
	f.lookOnce()

	f.pool.check = errBroken
	f.upkeep.check(t.Context())
	f.pool.check = nil
	f.upkeep.check(t.Context())
	if n := f.pool.made("Recover " + v.ID); n > 0 || !errors.Is(f.damageOf(v.ID), ErrLost) {
		t.Errorf("recovered %d times, it is %v", n, f.damageOf(v.ID))
	}
	if err := f.Delete(t.Context(), v.ID); err != nil {
		t.Errorf("deleted: %v", err)
	}
}

// That holds whatever else becomes of it meanwhile.
func TestLostVolumeIsNotReplacedWhileItCannotBeLookedFor(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: mib})
	putBack := f.pool.take(v.ID)
	f.lookOnce()

	heal := func() {
		f.pool.check = errBroken
		f.upkeep.check(t.Context())
		f.pool.check = nil
		f.upkeep.check(t.Context())
	}
	f.pool.FailOn("Empty", errBroken)
	heal()
	f.pool.FailOn("Of", fmt.Errorf("%w: no disk", ErrDamaged))
	f.lookOnce()
	f.pool.FailOn("Empty", nil)
	heal()
	if n := f.pool.made("Recover " + v.ID); n > 0 || f.damageOf(v.ID) == nil {
		t.Errorf("recovered %d times, it is %v", n, f.damageOf(v.ID))
	}

	putBack()
	heal()
	if err := f.damageOf(v.ID); err != nil {
		t.Errorf("when it was back: %v", err)
	}
}

// Without its disk a volume cannot be used; it is lost when the disk is back without it.
func TestWhatIsSaidOfAVolumeFollowsWhatIsSeen(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: mib})
	f.pool.take(v.ID)
	noDisk := fmt.Errorf("%w: no disk", ErrDamaged)
	for _, away := range []error{noDisk, nil, noDisk, fmt.Errorf("%w: another disk", ErrDamaged)} {
		f.pool.FailOn("Of", away)
		f.lookOnce()
		want := away
		if away == nil {
			want = ErrLost
		}
		if got := f.damageOf(v.ID); !errors.Is(got, want) {
			t.Errorf("it is %v, and was seen as %v", got, away)
		}
	}
}

func TestWhatARecoveryHasFoundIsKept(t *testing.T) {
	f := newFixture(t)
	lost := f.create(Request{Name: "lost", Required: mib})
	elsewhere := f.create(Request{Name: "elsewhere", Required: mib})
	f.pool.take(lost.ID)
	found := fmt.Errorf("%w: made in transaction 7", ErrLost)
	f.pool.FailOn("Recover", found)
	f.restart()
	f.lookOnce()
	if got := f.damageOf(lost.ID); !errors.Is(got, found) {
		t.Errorf("it is %v", got)
	}

	f.pool.FailOn("Recover", fmt.Errorf("%w: in another pool", ErrDamaged))
	f.restart()
	f.pool.name = "another"
	f.pool.take(elsewhere.ID)
	f.lookOnce()
	if got := f.damageOf(elsewhere.ID); got == nil || errors.Is(got, ErrLost) {
		t.Errorf("one that is in another pool is %v", got)
	}
}

func TestVolumesThatCannotBeLookedAtAreTrouble(t *testing.T) {
	f := newFixture(t)
	var heard []error
	f.OnTrouble(func(_ string, err error) { heard = append(heard, err) })
	for _, failure := range []error{errBroken, errBroken, nil, fmt.Errorf("%w: down", ErrUnavailable)} {
		f.files.FailOn("Inspect", failure)
		f.lookOnce()
	}
	if len(heard) != 2 || !errors.Is(heard[0], errBroken) || heard[1] != nil {
		t.Errorf("heard %v", heard)
	}
}

// Somebody may be copying what was lost to its place: Recover would make an image whole that is short.
func TestLostVolumeIsNotBackWhileItIsShort(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: mib})
	putBack := f.pool.take(v.ID)
	f.lookOnce()

	putBack()
	f.pool.FailOn("Part", errBroken)
	f.lookOnce()
	if n := f.pool.made("Recover " + v.ID); n > 0 || !errors.Is(f.damageOf(v.ID), ErrLost) {
		t.Errorf("recovered %d times, it is %v", n, f.damageOf(v.ID))
	}

	f.pool.FailOn("Part", nil)
	f.lookOnce()
	if err := f.damageOf(v.ID); err != nil {
		t.Errorf("when it was whole: %v", err)
	}
}

// What a look has seen is of its time: a volume that was made since is not missed.
func TestVolumeThatIsMadeDuringALookIsNotMissed(t *testing.T) {
	f := newFixture(t)
	before := f.index.entries()
	seen, err := f.pool.Inspect()
	if err != nil {
		t.Fatal(err)
	}
	v := f.create(Request{Name: "v", Required: mib})
	if f.upkeep.compare(t.Context(), "pool", seen, before) || f.damageOf(v.ID) != nil {
		t.Errorf("it is %v", f.damageOf(v.ID))
	}

	unlock, err := f.Lock(t.Context(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	f.pool.take(v.ID)
	f.lookOnce()
	if err := f.damageOf(v.ID); err != nil {
		t.Errorf("while it is worked on: %v", err)
	}
	unlock()
	f.lookOnce()
	if err := f.damageOf(v.ID); !errors.Is(err, ErrLost) {
		t.Errorf("afterwards: %v", err)
	}
}

// A record may have been copied to another name. It is damaged, and no volume is listed twice.
func TestRecordThatNamesAnotherVolumeIsInNoPage(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: mib})
	text, err := os.ReadFile(f.record(v.ID))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.record("zzz"), text, 0o600); err != nil {
		t.Fatal(err)
	}

	if report := f.restart(); !errors.Is(report.Damaged["zzz"], ErrDamaged) {
		t.Errorf("report %+v", report)
	}
	f.lookOnce()
	if list := f.List("", 0); len(list) != 1 || list[0].ID != v.ID || list[0].Damage != nil {
		t.Errorf("listed: %+v", list)
	}
}

func TestManyVolumesAreLookedAtOnce(t *testing.T) {
	f := newFixture(t)
	for i := range 3*lookAtOnce + 1 {
		f.pool.take(f.create(Request{Name: fmt.Sprint("v", i), Required: 4096}).ID)
	}
	before := f.pool.made("Inspect")
	f.lookOnce()
	if n := f.pool.made("Inspect") - before; n != 1 || len(f.Damaged()) != 3*lookAtOnce+1 {
		t.Errorf("looked %d times, found %d", n, len(f.Damaged()))
	}
}

func TestWhatIsIllAndWhatIsStuckIsCounted(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: mib})
	f.create(Request{Name: "s", Source: v.ID, Snapshot: true})
	f.pool.take(f.create(Request{Name: "lost", Required: mib}).ID)
	f.lookOnce()
	stuck := f.create(Request{Name: "stuck", Required: mib})
	f.pool.FailOn("Destroy", errBroken)
	if err := f.Delete(t.Context(), stuck.ID); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}

	want := map[string]Counts{"pool": {Snapshots: 1, Kept: mib, Damaged: 1, Stuck: 1}, "files": {}}
	if got := f.Counts(); !maps.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestWearOfADeviceIsTrouble(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: mib})
	var heard []error
	f.OnTrouble(func(_ string, err error) { heard = append(heard, err) })

	worn := errors.New("3 write errors")
	f.pool.FailOn("Wear", worn)
	f.lookOnce()
	f.lookOnce()
	f.pool.check = errBroken
	f.upkeep.check(t.Context())
	now, err := f.Get(v.ID)
	if err != nil || !errors.Is(now.Trouble, worn) || !errors.Is(now.Trouble, errBroken) {
		t.Errorf("it is %+v, %v", now, err)
	}

	f.pool.check = nil
	f.upkeep.check(t.Context())
	f.pool.FailOn("Wear", nil)
	f.lookOnce()
	if len(heard) != 4 || heard[0] == nil || heard[2] == nil || heard[3] != nil {
		t.Errorf("heard %v", heard)
	}
}

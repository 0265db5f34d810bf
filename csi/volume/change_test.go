package volume

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

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
	if now, err := f.Get(v.ID); err != nil || !reflect.DeepEqual(now, v) {
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

func TestLimitsAreRecorded(t *testing.T) {
	f := newFixture(t)
	first, second := Limits{WriteBytes: 4 * mib}, Limits{ReadOps: 100}
	v := f.create(Request{Name: "v", Required: 16 * mib, Limits: first})
	for range 2 {
		if got, err := f.Modify(t.Context(), v.ID, second); err != nil || got.Limits != second {
			t.Fatalf("%+v, %v", got.Limits, err)
		}
	}

	f.restart()
	if got, err := f.Get(v.ID); err != nil || got.Limits != second || got.Size != v.Size {
		t.Errorf("after a restart %+v, %v", got, err)
	}

	// A request for what it was made with is not one for what it is now.
	again := Request{
		Name:     "v",
		Required: 16 * mib,
		Access:   Filesystem,
		Limits:   first,
	}
	if _, err := f.Create(t.Context(), again); !errors.Is(err, ErrConflict) {
		t.Errorf("created again: %v", err)
	}

	if _, err := f.Modify(t.Context(), v.ID, Limits{}); err != nil {
		t.Error(err)
	}
	data, err := os.ReadFile(f.record(v.ID))
	if err != nil || strings.Contains(string(data), "limits") {
		t.Errorf("record %s, %v", data, err)
	}
	if _, err := f.Modify(t.Context(), "none", first); !errors.Is(err, ErrNotFound) {
		t.Errorf("limits of what is not there: %v", err)
	}
}

func TestLimitsThatTheVolumeCannotHaveAreRefused(t *testing.T) {
	f := newFixture(t)
	v := f.create(Request{Name: "v", Required: 16 * mib})
	f.pool.FailOn("CheckLimits", ErrInvalid)
	if _, err := f.Modify(t.Context(), v.ID, Limits{ReadOps: 100}); !errors.Is(err, ErrInvalid) {
		t.Errorf("error %v", err)
	}
	if got, _ := f.Get(v.ID); got.Limits != (Limits{}) {
		t.Errorf("limits %+v", got.Limits)
	}
	if _, err := f.Modify(t.Context(), v.ID, Limits{}); err != nil {
		t.Errorf("none: %v", err)
	}
}

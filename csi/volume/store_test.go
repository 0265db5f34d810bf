package volume

import (
	"fmt"
	"slices"
	"testing"
)

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

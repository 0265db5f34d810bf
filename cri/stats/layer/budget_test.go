package layer

import (
	"testing"
	"time"
)

func TestQuickLayersLeaveTimeForTheOthersOfTheirMoment(t *testing.T) {
	var b budget
	now := time.Unix(1_700_000_000, 0)
	b.left(now)
	b.spent += time.Millisecond

	// A container that is new late in the moment.
	if got := b.left(now.Add(moment / 2)); got != patience-time.Millisecond {
		t.Errorf("%v are left", got)
	}

	b.spent += 2 * patience
	if got := b.left(now.Add(moment)); got != 0 {
		t.Errorf("%v are left of a moment in which all was waited", got)
	}
	if got := b.left(now.Add(moment + 1)); got != patience {
		t.Errorf("%v are left of the next moment", got)
	}
}

package forget

import (
	"testing"
	"time"

	"github.com/trivet-node/trivet/csi/csitest"
)

func TestOneOfTwoHasTheTurnUntilItEnds(t *testing.T) {
	c := csitest.NewCluster(t)
	one := NewTurn(c.Client, "kube-system", "turn", "one")
	two := NewTurn(c.Client, "kube-system", "turn", "two")
	now := time.Now()
	for _, step := range []struct {
		who  *Turn
		at   time.Duration
		mine bool
	}{
		{one, 0, true},
		{two, time.Second, false},
		{one, turnLength / 2, true},
		{two, turnLength + time.Second, false},
		{two, turnLength*3/2 + time.Second, true},
		{one, turnLength*3/2 + 2*time.Second, false},
	} {
		mine, err := step.who.take(t.Context(), now.Add(step.at))
		if mine != step.mine || err != nil {
			t.Errorf("%s after %s: %t, %v; want %t", step.who.Identity, step.at, mine, err, step.mine)
		}
	}
}

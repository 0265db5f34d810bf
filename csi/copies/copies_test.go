package copies

import (
	"testing"

	"github.com/trivet-node/trivet/csi/btrfs"
)

// Each copy keeps all that its owner was charged for when it was made: the one that keeps most has all.
func TestCopiesOfOneOwnerKeepItsBlocksOnce(t *testing.T) {
	c := New()
	c.Add("a", map[string]int64{"v": 10})
	c.Add("b", map[string]int64{"v": 30, "w": 5})
	c.Add("b", map[string]int64{"v": 30, "w": 5})
	for _, step := range []struct {
		removed string
		v, w    int64
	}{{"", 30, 5}, {"b", 10, 0}, {"b", 10, 0}, {"a", 0, 0}} {
		c.Remove(step.removed, btrfs.Subvolume{})
		if v, w := c.Of("v"), c.Of("w"); v != step.v || w != step.w {
			t.Errorf("without %q: v %d, w %d; want %d, %d", step.removed, v, w, step.v, step.w)
		}
	}
	if !c.IsStale("v") || len(c.Owners()) != 0 {
		t.Errorf("stale %v, owners %v", c.Stales(), c.Owners())
	}
}

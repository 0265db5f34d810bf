package memoryalarm

import "testing"

const mib = 1 << 20

func TestALimitIsAimedAtByHalvesUntilItIsNear(t *testing.T) {
	for _, c := range []struct {
		name  string
		aim   Aim
		usage int64
		near  int64
	}{
		{"far", Aim{Now: 1000 * mib, Limit: 3000 * mib}, 2000 * mib, 250 * mib},
		{"half of it", Aim{Now: 2000 * mib, Limit: 3000 * mib}, 2500 * mib, 125 * mib},
		{"near", Aim{Now: 2936 * mib, Limit: 3000 * mib}, 3000 * mib, mib},
		{"there", Aim{Now: 3000 * mib, Limit: 3000 * mib}, 3000 * mib, mib},
	} {
		if usage, near := c.aim.next(); usage != c.usage || near != c.near {
			t.Errorf("%s: %d MiB, as good within %d, want %d and %d",
				c.name, usage/mib, near/mib, c.usage/mib, c.near/mib)
		}
	}
}

package podspec

import "testing"

func TestMemoryIsThrottledBetweenRequestAndLimit(t *testing.T) {
	for _, c := range []struct {
		factor         float64
		request, limit int64
		want           int64
	}{
		{0, 0, 1 << 20, 0},
		{0.9, 0, 0, 0},
		{0.9, 0, 1 << 20, 942080},
		{0.9, 1 << 20, 1 << 20, 0},
		{0.5, 1 << 20, 3 << 20, 2 << 20},
		{1, 1 << 20, 3 << 20, 3 << 20},
		{0.1, 1 << 20, 1<<20 + 4096, 0},
		{0.9, 2 << 20, 1 << 20, 0},
	} {
		if got := (MemoryQoS{Throttling: c.factor}).High(c.request, c.limit); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

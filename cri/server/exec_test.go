package server

import (
	"math"
	"testing"
	"time"
)

func TestTimeoutsOfAnyLengthWait(t *testing.T) {
	const longest = math.MaxInt64 / time.Second * time.Second
	for n, want := range map[int64]time.Duration{
		-1:             0,
		0:              0,
		30:             30 * time.Second,
		10_000_000_000: longest,
		math.MaxInt64:  longest,
		math.MinInt64:  0,
	} {
		if got := seconds(n); got != want {
			t.Errorf("%d s are %v, want %v", n, got, want)
		}
	}
}

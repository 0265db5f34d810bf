package units

import (
	"math"
	"testing"
)

func TestBytesAreReadByPeople(t *testing.T) {
	for n, want := range map[int64]string{
		0:             "0",
		1023:          "1023",
		1024:          "1Ki",
		1536:          "1.5Ki",
		100 << 20:     "100Mi",
		1<<30 + 1<<27: "1.1Gi",
		-5 << 40:      "-5Ti",
		math.MaxInt64: "8Ei",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

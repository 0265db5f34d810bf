package shaping

import (
	"math"
	"testing"

	"github.com/trivet-node/trivet/cni/rtnl"
)

// tc qdisc show prints 8 Mbit/s with a burst of 1 MB as: rate 8Mbit burst 1000Kb lat 25ms.
func TestLimitIsATokenBucketInBytesAndTicks(t *testing.T) {
	got := Limit{Rate: 8_000_000, Burst: 8_000_000}.bucket()
	want := rtnl.TokenBucket{
		Rate:   1_000_000,
		Limit:  1_025_000,
		Buffer: 15_625_000,
	}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// What runtimes ask for where a pod's annotations say nothing of a burst.
func TestABurstThatDoesNotFitIsNotCutShort(t *testing.T) {
	for _, rate := range []uint64{1_000, 100_000, 1_000_000, 10_000_000, 1_000_000_000, 1e15} {
		l := Limit{Rate: rate, Burst: math.MaxUint32}
		got := l.bucket()

		// A tick is 64 ns, and the kernel has room for 275 s of them.
		passes := min(float64(l.Burst)/8, float64(rate)/8*275)
		if at := float64(got.Buffer) / ticks * float64(rate) / 8; at < passes*0.9 && got.Buffer > 100 {
			t.Errorf("at %d bit/s a burst is %.0f bytes: %+v", rate, at, got)
		}
		if got.Limit < math.MaxUint32/8 || !l.isMet(got) {
			t.Errorf("at %d bit/s: %+v", rate, got)
		}
	}

	other := Limit{Rate: 8_000_000, Burst: 8_000_000}.bucket()
	other.Buffer++
	if (Limit{Rate: 8_000_000, Burst: 8_000_000}).isMet(other) {
		t.Error("another burst is taken for the one that was set")
	}
}

func TestDeviceHasUpstreamsName(t *testing.T) {
	// sha512 of "netcontainer".
	if got := deviceName("net", "container"); len(got) != 15 || got[:3] != "bwp" {
		t.Error(got)
	}
}

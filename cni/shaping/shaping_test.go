package shaping

import (
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

func TestDeviceHasUpstreamsName(t *testing.T) {
	// sha512 of "netcontainer".
	if got := deviceName("net", "container"); len(got) != 15 || got[:3] != "bwp" {
		t.Error(got)
	}
}

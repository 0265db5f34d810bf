package cgroup_test

import (
	"math"
	"testing"

	"github.com/trivet-node/trivet/internal/cgroup"
)

func TestSharesFollowRequestsWithinTheKernelsBounds(t *testing.T) {
	for milli, want := range map[int64]uint64{
		0:       2,
		1:       2,
		250:     256,
		1000:    1024,
		1 << 40: 262144,
	} {
		if got := cgroup.Shares(milli); got != want {
			t.Errorf("%d thousandths of a CPU: %d shares, want %d", milli, got, want)
		}
	}
}

func TestQuotaIsOfAPeriodAndAtLeastTheKernelsMinimum(t *testing.T) {
	for milli, want := range map[int64]int64{
		0:    0,
		1:    1000,
		250:  25_000,
		1000: 100_000,
	} {
		if got := cgroup.Quota(milli); got != want {
			t.Errorf("%d thousandths of a CPU: %d us, want %d", milli, got, want)
		}
	}
}

func TestWeightIsTheOneOfRuntimesAndKubelet(t *testing.T) {
	for shares, want := range map[uint64]uint64{
		0:              0,
		2:              1,
		102:            17,
		512:            59,
		1024:           100,
		2048:           174,
		262144:         10000,
		math.MaxUint64: 10000,
	} {
		if got := cgroup.Weight(shares); got != want {
			t.Errorf("%d shares: weight %d, want %d", shares, got, want)
		}
	}
}

func TestSharesAndQuotasAreTranslatedBack(t *testing.T) {
	for milli := int64(10); milli < 5000; milli++ {
		if got := cgroup.MilliCPUOfShares(int64(cgroup.Shares(milli))); got != milli {
			t.Fatalf("%dm: shares of %dm", milli, got)
		}
		if got := cgroup.MilliCPUOfQuota(cgroup.Quota(milli), cgroup.DefaultPeriod); got != milli {
			t.Fatalf("%dm: quota of %dm", milli, got)
		}
	}
	if got := cgroup.MilliCPUOfQuota(-1, cgroup.DefaultPeriod); got != 0 {
		t.Errorf("no quota: %dm", got)
	}
}

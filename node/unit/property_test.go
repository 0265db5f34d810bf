package unit_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/node/unit"
)

func TestPropertiesMeanWhatLimitsMean(t *testing.T) {
	limits := cgroup.Limits{
		CPUShares: 1024,
		CPUQuota:  1550,
		CPUPeriod: 10_000,
		Memory:    60 << 20,
		PIDs:      -1,
	}

	for v2, want := range map[bool][]unit.Property{
		false: {
			{"CPUShares", uint64(1024)},
			// systemd knows whole percents only.
			{"CPUQuotaPerSecUSec", uint64(160_000)},
			{"CPUQuotaPeriodUSec", uint64(10_000)},
			{"MemoryLimit", uint64(60 << 20)},
			{"TasksMax", uint64(math.MaxUint64)},
		},
		true: {
			{"CPUWeight", uint64(100)},
			{"CPUQuotaPerSecUSec", uint64(160_000)},
			{"CPUQuotaPeriodUSec", uint64(10_000)},
			{"MemoryMax", uint64(60 << 20)},
			{"TasksMax", uint64(math.MaxUint64)},
		},
	} {
		if d := cmp.Diff(want, unit.Properties(limits, v2)); d != "" {
			t.Errorf("v2 %v: %s", v2, d)
		}
	}

	if got := unit.Rounded(limits).CPUQuota; got != 1600 {
		t.Errorf("rounded quota %d, want 1600", got)
	}

	limits = cgroup.Limits{CPUQuota: 50_000, CPUPeriod: 100_000}
	usual := []unit.Property{{"CPUQuotaPerSecUSec", uint64(500_000)}}
	if d := cmp.Diff(usual, unit.Properties(limits, true)); d != "" {
		t.Errorf("with the usual period: %s", d)
	}
	limits = cgroup.Limits{MemoryMin: new(int64), MemoryLow: new(int64(4096)), MemoryHigh: 8192}
	memory := []unit.Property{
		{"MemoryMin", uint64(0)},
		{"MemoryLow", uint64(4096)},
		{"MemoryHigh", uint64(8192)},
	}
	if d := cmp.Diff(memory, unit.Properties(limits, true)); d != "" {
		t.Errorf("memory: %s", d)
	}
	if got := unit.Properties(limits, false); len(got) != 0 {
		t.Errorf("memory on v1 becomes %v", got)
	}
	if got := unit.Properties(cgroup.Limits{}, true); len(got) != 0 {
		t.Errorf("no limits become %v", got)
	}
}

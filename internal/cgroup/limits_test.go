package cgroup

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// written checks what limits are in the files of v1 and v2.
func written(t *testing.T, limits Limits, v1, v2 []setting) {
	t.Helper()
	for version, want := range map[bool][]setting{false: v1, true: v2} {
		got := settings(limits, version)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(setting{})); diff != "" {
			t.Errorf("v2 %v: %s", version, diff)
		}
	}
}

func TestLimitsAreWrittenInTheFilesOfTheVersion(t *testing.T) {
	limits := Limits{
		CPUShares: 1024,
		CPUQuota:  50_000,
		Memory:    64 << 20,
		PIDs:      10,
		HugePages: map[string]int64{"2MB": 4 << 20},
	}

	v1 := []setting{
		{"cpu", "cpu.shares", "1024"},
		{"cpu", "cpu.cfs_period_us", "100000"},
		{"cpu", "cpu.cfs_quota_us", "50000"},
		{"memory", "memory.limit_in_bytes", "67108864"},
		{"pids", "pids.max", "10"},
		{"hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304"},
		{"hugetlb", "hugetlb.2MB.rsvd.limit_in_bytes", "4194304"},
	}

	v2 := []setting{
		{"cpu", "cpu.weight", "100"},
		{"cpu", "cpu.max", "50000 100000"},
		{"memory", "memory.max", "67108864"},
		{"pids", "pids.max", "10"},
		{"hugetlb", "hugetlb.2MB.max", "4194304"},
		{"hugetlb", "hugetlb.2MB.rsvd.max", "4194304"},
	}
	written(t, limits, v1, v2)
}

func TestMemoryIsProtectedAndThrottledOnV2(t *testing.T) {
	limits := Limits{MemoryMin: new(int64), MemoryLow: new(int64(4096)), MemoryHigh: 8192}
	written(t, limits, nil, []setting{
		{"memory", "memory.min", "0"},
		{"memory", "memory.low", "4096"},
		{"memory", "memory.high", "8192"},
	})
}

func TestWhatIsUnlimitedIsWrittenAndWhatIsNotSetIsNot(t *testing.T) {
	limits := Limits{
		CPUQuota:  -1,
		CPUPeriod: 20_000,
		Memory:    -1,
		PIDs:      -1,
	}
	v1 := []setting{
		{"cpu", "cpu.cfs_period_us", "20000"},
		{"cpu", "cpu.cfs_quota_us", "-1"},
		{"memory", "memory.limit_in_bytes", "-1"},
		{"pids", "pids.max", "max"},
	}
	v2 := []setting{
		{"cpu", "cpu.max", "max 20000"},
		{"memory", "memory.max", "max"},
		{"pids", "pids.max", "max"},
	}
	written(t, limits, v1, v2)
	written(t, Limits{}, nil, nil)
}

func TestPageSizesHaveTheKernelsNames(t *testing.T) {
	for bytes, want := range map[uint64]string{
		64 << 10: "64KB",
		2 << 20:  "2MB",
		1 << 30:  "1GB",
	} {
		if got := PageSize(bytes); got != want {
			t.Errorf("%d bytes: %s, want %s", bytes, got, want)
		}
	}
}

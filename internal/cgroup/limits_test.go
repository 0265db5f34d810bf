package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
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

func TestSwapIsLimitedWithMemoryOnV1AndBesideItOnV2(t *testing.T) {
	for _, c := range []struct {
		limits Limits
		v2     string
	}{
		{Limits{Memory: 64, Swap: 100}, "36"},
		{Limits{Memory: 64, Swap: 64}, "0"},
		{Limits{Memory: 64, Swap: -1}, "max"},
	} {
		v1 := []setting{
			{"memory", "memory.limit_in_bytes", "64"},
			{"memory", "memory.memsw.limit_in_bytes", strconv.FormatInt(c.limits.Swap, 10)},
		}
		v2 := []setting{{"memory", "memory.max", "64"}, {"memory", "memory.swap.max", c.v2}}
		written(t, c.limits, v1, v2)
	}

	other := Limits{Files: map[string]string{"memory.high": "max", "memory.oom.group": "1"}}
	written(t, other, nil, []setting{{"", "memory.high", "max"}, {"", "memory.oom.group", "1"}})
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

// limited returns hosts with v1 and v2 that show the same limits of the group /g.
func limited(t *testing.T) map[string]*Host {
	t.Helper()
	v1 := tree(t, map[string]string{
		"cpu/g/cpu.shares":                          "512\n",
		"cpu/g/cpu.cfs_quota_us":                    "50000\n",
		"cpu/g/cpu.cfs_period_us":                   "100000\n",
		"memory/g/memory.limit_in_bytes":            "8388608\n",
		"pids/g/pids.max":                           "max\n",
		"hugetlb/g/hugetlb.2MB.limit_in_bytes":      "0\n",
		"hugetlb/g/hugetlb.1GB.limit_in_bytes":      "9223372036854771712\n",
		"hugetlb/g/hugetlb.2MB.rsvd.limit_in_bytes": "0\n",
	})
	legacy := &Host{controllers: map[string]string{}}
	for _, controller := range []string{"cpu", "memory", "pids", "hugetlb"} {
		legacy.controllers[controller] = filepath.Join(v1, controller)
	}

	unified := &Host{V2: true, hierarchies: []string{tree(t, map[string]string{
		"g/cpu.weight":      "59\n",
		"g/cpu.max":         "50000 100000\n",
		"g/memory.max":      "8388608\n",
		"g/memory.min":      "0\n",
		"g/memory.low":      "4096\n",
		"g/memory.high":     "max\n",
		"g/pids.max":        "max\n",
		"g/hugetlb.2MB.max": "0\n",
		"g/hugetlb.1GB.max": "max\n",
	})}}

	return map[string]*Host{"v1": legacy, "v2": unified}
}

// A pod's group is widened before its containers are, and made narrower after them.
func TestOnlyLimitsThatAllowMoreAreAbove(t *testing.T) {
	hosts := limited(t)
	same := Limits{
		CPUShares: 512,
		CPUQuota:  50_000,
		Memory:    8 << 20,
		PIDs:      -1,
	}
	less := Limits{
		CPUShares: 2,
		CPUQuota:  1000,
		Memory:    4096,
		PIDs:      100,
	}

	for name, c := range map[string]struct{ want, above Limits }{
		"nothing":      {Limits{}, Limits{}},
		"the same":     {same, Limits{}},
		"less":         {less, Limits{}},
		"shares":       {Limits{CPUShares: 1024, Memory: 4096}, Limits{CPUShares: 1024}},
		"quota":        {Limits{CPUQuota: 60_000}, Limits{CPUQuota: 60_000}},
		"no quota":     {Limits{CPUQuota: -1}, Limits{CPUQuota: -1}},
		"other period": {Limits{CPUQuota: 60_000, CPUPeriod: 200_000}, Limits{}},
		"memory":       {Limits{CPUQuota: 1000, Memory: 16 << 20}, Limits{Memory: 16 << 20}},
		"no limit":     {Limits{Memory: -1}, Limits{Memory: -1}},
		"huge pages": {
			Limits{HugePages: map[string]int64{"2MB": 2 << 20, "1GB": 1 << 30, "64KB": 64 << 10}},
			Limits{HugePages: map[string]int64{"2MB": 2 << 20}},
		},
	} {
		for version, host := range hosts {
			got, err := host.Above("/g", c.want)
			if diff := cmp.Diff(c.above, got); diff != "" || err != nil {
				t.Errorf("%s, %s: %v %s", name, version, err, diff)
			}
		}
	}

	want := Limits{MemoryMin: new(int64(4096)), MemoryLow: new(int64(4096)), MemoryHigh: 4096}
	got, err := hosts["v2"].Above("/g", want)
	if diff := cmp.Diff(Limits{MemoryMin: new(int64(4096))}, got); diff != "" || err != nil {
		t.Errorf("protection: %v %s", err, diff)
	}

	for version, host := range hosts {
		if _, err := host.Above("/gone", Limits{Memory: 1}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v of a group that is gone", version, err)
		}
	}
}

func TestSwapIsBoundedWhereTheKernelHasTheFile(t *testing.T) {
	root := t.TempDir()
	v1 := map[string]string{"memory": root + "/v1/memory"}
	hosts := map[string]*Host{
		"v1/memory/memory.memsw.limit_in_bytes": {controllers: v1},
		"v2/pods/memory.swap.max":               {V2: true, hierarchies: []string{root + "/v2"}},
	}
	for file, host := range hosts {
		group := "/pods"
		if !host.V2 {
			group = "/"
		}
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if host.BoundsSwap(group) {
			t.Errorf("%s: bounded without it", file)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if !host.BoundsSwap(group) {
			t.Errorf("%s: not bounded", file)
		}
	}

	if (&Host{}).BoundsSwap("/") {
		t.Error("bounded without a memory controller")
	}
}

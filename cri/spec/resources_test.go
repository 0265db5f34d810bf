package spec_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/spec"
)

type resources = runtimeapi.LinuxContainerResources

// memory has a limit of memory, and of memory and swap together.
func memory(limit, total int64) *resources {
	return &resources{MemoryLimitInBytes: limit, MemorySwapLimitInBytes: total}
}

func quota(quota, period int64) *resources { return &resources{CpuQuota: quota, CpuPeriod: period} }

func TestAChangeIsCompletedWithWhatItNeeds(t *testing.T) {
	for name, c := range map[string]struct{ current, asked, want *resources }{
		"no limit of swap":           {memory(10, 0), memory(20, 0), memory(20, 0)},
		"without swap":               {memory(10, 10), memory(20, 0), memory(20, 20)},
		"without swap, less":         {memory(10, 10), memory(5, 0), memory(5, 5)},
		"swap above the new limit":   {memory(10, 30), memory(20, 0), memory(20, 0)},
		"swap below the new limit":   {memory(10, 15), memory(20, 0), memory(20, 20)},
		"no limit any more":          {memory(10, 10), memory(-1, 0), memory(-1, -1)},
		"swap without limit, memory": {memory(10, -1), memory(20, 0), memory(20, 0)},
		"both":                       {memory(10, 10), memory(20, 40), memory(20, 40)},
		"swap alone":                 {memory(10, 10), memory(0, 40), memory(10, 40)},
		"swap of what has no limit":  {memory(0, 0), memory(0, 40), memory(-1, 40)},
		"other things":               {memory(10, 10), &resources{CpuShares: 2}, &resources{CpuShares: 2}},
		"quota":                      {quota(0, 0), quota(5, 0), quota(5, 100_000)},
		"quota of another period":    {quota(5, 10), quota(8, 0), quota(8, 10)},
		"period":                     {quota(5, 10), quota(0, 20), quota(5, 20)},
		"no quota any more":          {quota(5, 10), quota(-1, 0), quota(-1, 10)},
	} {
		got := spec.Change(c.current, c.asked)
		if diff := cmp.Diff(c.want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestMemoryThatIsLimitedIsNotSwappedUnlessThatIsSaid(t *testing.T) {
	said := memory(10, 0)
	said.Unified = map[string]string{"memory.swap.max": "5"}
	v2 := spec.Host{CgroupV2: true, Swap: true}
	for name, c := range map[string]struct {
		host        spec.Host
		asked, want *resources
	}{
		"a limit":                      {v2, memory(10, 0), memory(10, 10)},
		"a limit with swap":            {v2, memory(10, 30), memory(10, 30)},
		"any swap":                     {v2, memory(10, -1), memory(10, -1)},
		"swap by the name of a file":   {v2, said, said},
		"no limit":                     {v2, memory(0, 0), memory(0, 0)},
		"unlimited":                    {v2, memory(-1, 0), memory(-1, 0)},
		"nothing":                      {v2, nil, nil},
		"a kernel that does not limit": {spec.Host{CgroupV2: true}, memory(10, 0), memory(10, 0)},
	} {
		got := spec.InForce(c.asked, c.host)
		if diff := cmp.Diff(c.want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func pages(size string, limit uint64) *runtimeapi.HugepageLimit {
	return &runtimeapi.HugepageLimit{PageSize: size, Limit: limit}
}

func TestWhatAChangeDoesNotNameStaysAndCanBeTakenBack(t *testing.T) {
	current := &resources{
		CpuShares:          512,
		CpuQuota:           50_000,
		CpuPeriod:          100_000,
		MemoryLimitInBytes: 10,
		OomScoreAdj:        900,
		CpusetCpus:         "0",
		HugepageLimits:     []*runtimeapi.HugepageLimit{pages("1GB", 0), pages("2MB", 1)},
		Unified:            map[string]string{"memory.high": "max"},
	}
	change := &resources{
		CpuQuota:               -1,
		MemoryLimitInBytes:     20,
		MemorySwapLimitInBytes: 20,
		OomScoreAdj:            100,
		CpusetCpus:             "1",
		HugepageLimits:         []*runtimeapi.HugepageLimit{pages("2MB", 0), pages("1GB", 0)},
		Unified:                map[string]string{"memory.high": "15", "memory.low": "5"},
	}

	after := &resources{
		CpuShares:              512,
		CpuQuota:               -1,
		CpuPeriod:              100_000,
		MemoryLimitInBytes:     20,
		MemorySwapLimitInBytes: 20,
		OomScoreAdj:            900,
		CpusetCpus:             "1",
		HugepageLimits:         []*runtimeapi.HugepageLimit{pages("1GB", 0), pages("2MB", 0)},
		Unified:                map[string]string{"memory.high": "15", "memory.low": "5"},
	}
	got := spec.Changed(current, change)
	if diff := cmp.Diff(after, got, protocmp.Transform()); diff != "" {
		t.Errorf("after: %s", diff)
	}
	if again := spec.Changed(got, change); cmp.Diff(got, again, protocmp.Transform()) != "" {
		t.Errorf("repeated: %v", again)
	}

	back := &resources{
		CpuQuota:               50_000,
		MemoryLimitInBytes:     10,
		MemorySwapLimitInBytes: -1,
		CpusetCpus:             "0",
		HugepageLimits:         []*runtimeapi.HugepageLimit{pages("2MB", 1), pages("1GB", 0)},
		Unified:                map[string]string{"memory.high": "max"},
	}
	if diff := cmp.Diff(back, spec.Revert(current, change), protocmp.Transform()); diff != "" {
		t.Errorf("taken back: %s", diff)
	}

}

func TestWhatNobodyHasAskedForIsTakenBackToWhatTheKernelGives(t *testing.T) {
	got := spec.Revert(nil, &resources{CpuShares: 2, MemoryLimitInBytes: 10})
	if got.CpuShares != 1024 || got.MemoryLimitInBytes != -1 || got.CpuQuota != 0 {
		t.Errorf("%v", got)
	}
}

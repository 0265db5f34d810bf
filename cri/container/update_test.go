package container_test

import (
	"errors"
	"reflect"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// limited creates a container with 100 shares and a MiB of memory.
func (f *fixture) limited(name string) string {
	f.tb.Helper()
	asked := config(name)
	asked.Linux.Resources = &runtimeapi.LinuxContainerResources{CpuShares: 100, MemoryLimitInBytes: 1 << 20}
	id, err := f.Create(f.tb.Context(), f.pod, asked)
	if err != nil {
		f.tb.Fatal(err)
	}
	return id
}

// has checks which shares and how many MiB of memory a container has by its record.
func (f *fixture) has(id string, shares, memory int64) {
	f.tb.Helper()
	r := f.get(id)
	got := r.CurrentResources()
	if got.GetCpuShares() != shares || got.GetMemoryLimitInBytes() != memory<<20 || r.Change != nil {
		f.tb.Errorf("resources %v, change %v; want %d shares, %d MiB", got, r.Change, shares, memory)
	}
}

var twoMiB = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 2 << 20}

func TestResourcesThatWereUpdatedAreShownWithTheOthers(t *testing.T) {
	f := open(t)
	id := f.limited("app")
	for range 2 {
		if err := f.Update(t.Context(), id, twoMiB); err != nil {
			t.Fatal(err)
		}
	}

	f.has(id, 100, 2)
	f.restart()
	f.has(id, 100, 2)
}

// As with containerd: kubelet decides by what it has seen, and the container may have ended since.
func TestUpdateOfAContainerThatHasEndedIsASuccess(t *testing.T) {
	f := open(t)
	id := f.limited("app")
	if err := f.Stop(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Update(t.Context(), id, twoMiB); err != nil {
		t.Error(err)
	}

	f.check(id, life.Exited, "Error", 137)
	f.has(id, 100, 1)
	if got := f.node.Updates(id); len(got) > 0 {
		t.Errorf("the runtime was asked: %v", got)
	}
}

func TestUpdateThatFailsIsTakenBack(t *testing.T) {
	f := open(t)
	id := f.limited("app")
	refused := errors.New("refused")
	f.node.FailOnce("Update", refused)
	if err := f.Update(t.Context(), id, twoMiB); !errors.Is(err, refused) {
		t.Errorf("error %v", err)
	}

	f.has(id, 100, 1)
	updates := f.node.Updates(id)
	if len(updates) != 2 || *updates[1].Memory.Limit != 1<<20 || updates[1].CPU != nil {
		t.Errorf("not taken back: %v", updates)
	}
}

func TestUpdateThatIsNeitherDoneNorTakenBackIsTakenBackByTheNextOne(t *testing.T) {
	f := open(t)
	id := f.limited("app")
	f.node.FailOn("Update", errors.New("broken"))
	if err := f.Update(t.Context(), id, twoMiB); err == nil {
		t.Fatal("a success")
	}

	f.node.FailOn("Update", nil)
	if err := f.Update(t.Context(), id, &runtimeapi.LinuxContainerResources{CpuShares: 200}); err != nil {
		t.Fatal(err)
	}

	f.has(id, 200, 1)
	updates := f.node.Updates(id)
	if len(updates) != 4 || *updates[2].Memory.Limit != 1<<20 || *updates[3].CPU.Shares != 200 {
		t.Errorf("updates %v", updates)
	}
}

// The kernel has the old limits, the new ones or some of both when the server is killed.
func TestUpdateThatAKillHasCutOffIsFinishedByTheNextServer(t *testing.T) {
	f := open(t)
	id := f.limited("app")
	broken := errors.New("broken")
	f.node.FailOn("Update", broken)
	if err := f.Update(t.Context(), id, twoMiB); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if f.get(id).Change == nil {
		t.Fatal("an update that is neither done nor taken back is forgotten")
	}

	f.node.FailOn("Update", nil)
	f.node.Steps()
	f.restart()
	f.has(id, 100, 2)
	if steps := f.node.Steps(); len(steps) < 2 || steps[len(steps)-2] != "AwaitUpdates" {
		t.Errorf("steps %v: an update of the earlier server may still go on", steps)
	}
	if updates := f.node.Updates(id); *updates[len(updates)-1].Memory.Limit != 2<<20 {
		t.Errorf("the kernel has %d bytes", *updates[len(updates)-1].Memory.Limit)
	}
}

func TestMemoryLimitBelowWhatIsUsedIsRefusedOnV2(t *testing.T) {
	f := open(t)
	f.groups.used = 2 << 20
	f.restart()
	id := f.limited("app")
	if err := f.Update(t.Context(), id, twoMiB); !errors.Is(err, container.ErrInUse) {
		t.Errorf("error %v", err)
	}

	f.has(id, 100, 1)
	for _, change := range []*runtimeapi.LinuxContainerResources{
		{CpuShares: 200},
		{MemoryLimitInBytes: 1 << 20},
		{MemoryLimitInBytes: 4 << 20},
		{MemoryLimitInBytes: -1},
	} {
		if err := f.Update(t.Context(), id, change); err != nil {
			t.Errorf("%v: %v", change, err)
		}
	}
}

// crun 1.8 cannot write it.
func TestQuotaIsTakenAwayOnV1WhereTheRuntimeFailsTo(t *testing.T) {
	f := open(t)
	id := f.limited("app")
	f.node.FailOnce("Update", errors.New("out of range"))
	change := &runtimeapi.LinuxContainerResources{CpuQuota: -1, MemoryLimitInBytes: 2 << 20}
	if err := f.Update(t.Context(), id, change); err != nil {
		t.Fatal(err)
	}

	f.has(id, 100, 2)
	updates := f.node.Updates(id)
	if len(updates) != 2 || updates[1].CPU.Quota != nil || *updates[1].Memory.Limit != 2<<20 {
		t.Errorf("updates %v", updates)
	}
	if want := (cgroup.Limits{CPUQuota: -1, CPUPeriod: 100_000}); !reflect.DeepEqual(f.groups.applied, want) {
		t.Errorf("written: %+v", f.groups.applied)
	}
}

func TestLimitsOfCrunsContainersAreWrittenWithoutIt(t *testing.T) {
	f := open(t)
	f.runtime = "/usr/bin/crun"
	f.restart()
	id := f.limited("app")
	if err := f.Update(t.Context(), id, twoMiB); err != nil {
		t.Fatal(err)
	}

	f.has(id, 100, 2)
	if f.groups.applied.Memory != 2<<20 || len(f.node.Updates(id)) > 0 {
		t.Errorf("written %+v; crun was asked for %v", f.groups.applied, f.node.Updates(id))
	}

	f.groups.refuse = errors.New("busy")
	err := f.Update(t.Context(), id, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 1 << 20})
	if err == nil || f.groups.applied.Memory != 2<<20 {
		t.Errorf("%v; not taken back: %+v", err, f.groups.applied)
	}
	f.has(id, 100, 2)

	cpus := &runtimeapi.LinuxContainerResources{CpusetCpus: "0"}
	if err := f.Update(t.Context(), id, cpus); err != nil || len(f.node.Updates(id)) != 1 {
		t.Errorf("%v; crun was asked for %v", err, f.node.Updates(id))
	}
}

func TestSharesOnV2AreConvertedByTheRuntime(t *testing.T) {
	f := open(t)
	f.runtime = "/usr/bin/crun"
	f.groups.used = 1
	f.restart()
	id := f.limited("app")
	same := &runtimeapi.LinuxContainerResources{
		CpuShares:      100,
		CpuQuota:       5000,
		Unified:        map[string]string{"memory.high": "max"},
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}},
	}
	if err := f.Update(t.Context(), id, same); err != nil {
		t.Fatal(err)
	}

	want := cgroup.Limits{CPUQuota: 5000, CPUPeriod: 100_000, Files: same.Unified}
	if !reflect.DeepEqual(f.groups.applied, want) || len(f.node.Updates(id)) > 0 {
		t.Errorf("written %+v; crun was asked for %v", f.groups.applied, f.node.Updates(id))
	}

	more := &runtimeapi.LinuxContainerResources{CpuShares: 200}
	if err := f.Update(t.Context(), id, more); err != nil || len(f.node.Updates(id)) != 1 {
		t.Errorf("%v; crun was asked for %v", err, f.node.Updates(id))
	}
}

package spec

import (
	"cmp"
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Resources returns the limits of a container on this machine. Zero means that a limit is not set, or is left
// as it is; -1 that there is none.
func Resources(r *runtimeapi.LinuxContainerResources, host Host) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	if r == nil {
		return out
	}

	out.CPU = cpu(r)
	out.Memory = memory(r)

	// Kubelet limits those of all sizes that the kernel has, also where nothing can limit them.
	pages := r.HugepageLimits
	if !host.HugePages {
		pages = nil
	}

	for _, h := range pages {
		out.HugepageLimits = append(
			out.HugepageLimits,
			specs.LinuxHugepageLimit{Pagesize: h.PageSize, Limit: h.Limit},
		)
	}

	// The names of cgroup files are those of v2.
	if host.CgroupV2 {
		out.Unified = r.Unified
	}

	return out
}

// InForce returns resources as they come into force on this machine: a container with a limit of memory that
// says nothing of swap has none, as with other runtimes. They may be the same; nil stays nil.
func InForce(r *runtimeapi.LinuxContainerResources, host Host) *runtimeapi.LinuxContainerResources {
	const file = "memory.swap.max"
	if _, said := r.GetUnified()[file]; said || !host.Swap || r.GetMemoryLimitInBytes() <= 0 ||
		r.GetMemorySwapLimitInBytes() != 0 {
		return r
	}

	out := proto.CloneOf(r)
	out.MemorySwapLimitInBytes = out.MemoryLimitInBytes
	return out
}

func memory(r *runtimeapi.LinuxContainerResources) *specs.LinuxMemory {
	if r.MemoryLimitInBytes == 0 {
		return nil
	}
	m := &specs.LinuxMemory{Limit: &r.MemoryLimitInBytes}
	if r.MemorySwapLimitInBytes != 0 {
		m.Swap = &r.MemorySwapLimitInBytes
	}
	return m
}

func cpu(r *runtimeapi.LinuxContainerResources) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	if r.CpuShares != 0 {
		c.Shares = new(uint64(r.CpuShares))
	}
	if r.CpuQuota != 0 {
		c.Quota = &r.CpuQuota
	}
	if r.CpuPeriod != 0 {
		c.Period = new(uint64(r.CpuPeriod))
	}
	if c.Shares == nil && c.Quota == nil && c.Period == nil && c.Cpus == "" && c.Mems == "" {
		return nil
	}

	return c
}

// Change returns what an update of a container's resources has the OCI runtime change: what is asked for,
// completed with what it is only taken together with.
func Change(current, asked *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
	out := proto.CloneOf(asked)

	// On cgroup v2 both are in one file, and runtimes write a period without a quota as no quota.
	if out.CpuQuota != 0 || out.CpuPeriod != 0 {
		out.CpuQuota = cmp.Or(out.CpuQuota, current.GetCpuQuota())
		out.CpuPeriod = cmp.Or(out.CpuPeriod, current.GetCpuPeriod(), defaults.CpuPeriod)
	}

	limit, total := current.GetMemoryLimitInBytes(), current.GetMemorySwapLimitInBytes()
	if out.MemorySwapLimitInBytes != 0 {
		out.MemoryLimitInBytes = cmp.Or(out.MemoryLimitInBytes, limit, defaults.MemoryLimitInBytes)
		return out
	}

	// The limit of memory and swap together is never less than that of memory, and a container that could
	// not swap cannot afterwards.
	memory := out.MemoryLimitInBytes
	if memory != 0 && total != 0 && (memory < 0 || total == limit || total > 0 && total < memory) {
		out.MemorySwapLimitInBytes = memory
	}

	return out
}

// Changed returns the resources of a container after a change. The OOM score stays that of its processes,
// which an update does not reach.
func Changed(current, change *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
	out := &runtimeapi.LinuxContainerResources{}
	proto.Merge(out, current)
	proto.Merge(out, change)
	out.OomScoreAdj = current.GetOomScoreAdj()

	// A list is merged by appending to it; each size of pages is to be there once, as it was last given.
	pages := map[string]*runtimeapi.HugepageLimit{}
	for _, l := range out.HugepageLimits {
		pages[l.PageSize] = l
	}

	out.HugepageLimits = nil
	for _, size := range slices.Sorted(maps.Keys(pages)) {
		out.HugepageLimits = append(out.HugepageLimits, pages[size])
	}

	return out
}

// defaults are what a container has of those that it was not given, where that can be named.
var defaults = &runtimeapi.LinuxContainerResources{
	CpuShares:              1024,
	CpuPeriod:              100_000,
	CpuQuota:               -1,
	MemoryLimitInBytes:     -1,
	MemorySwapLimitInBytes: -1,
}

// Revert returns what takes a change back: what the container had before of all that the change has.
func Revert(current, change *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
	was := Changed(defaults, current)
	out := &runtimeapi.LinuxContainerResources{Unified: map[string]string{}}
	back := func(changed, was int64) int64 {
		if changed == 0 {
			return 0
		}
		return was
	}

	out.CpuShares = back(change.GetCpuShares(), was.CpuShares)
	out.CpuPeriod = back(change.GetCpuPeriod(), was.CpuPeriod)
	out.CpuQuota = back(change.GetCpuQuota(), was.CpuQuota)
	out.MemoryLimitInBytes = back(change.GetMemoryLimitInBytes(), was.MemoryLimitInBytes)
	out.MemorySwapLimitInBytes = back(change.GetMemorySwapLimitInBytes(), was.MemorySwapLimitInBytes)

	if change.GetCpusetCpus() != "" {
		out.CpusetCpus = was.CpusetCpus
	}
	if change.GetCpusetMems() != "" {
		out.CpusetMems = was.CpusetMems
	}

	for _, l := range change.GetHugepageLimits() {
		same := func(o *runtimeapi.HugepageLimit) bool { return o.PageSize == l.PageSize }
		if i := slices.IndexFunc(was.HugepageLimits, same); i >= 0 {
			out.HugepageLimits = append(out.HugepageLimits, was.HugepageLimits[i])
		}
	}

	for file := range change.GetUnified() {
		if value, had := was.Unified[file]; had {
			out.Unified[file] = value
		}
	}

	return out
}

package spec

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Resources returns the limits of a container, on cgroup v2 or v1. Zero means that a limit is not set.
func Resources(r *runtimeapi.LinuxContainerResources, v2 bool) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	if r == nil {
		return out
	}

	out.CPU = cpu(r)
	if r.MemoryLimitInBytes != 0 {
		out.Memory = &specs.LinuxMemory{Limit: &r.MemoryLimitInBytes}
		if r.MemorySwapLimitInBytes != 0 {
			out.Memory.Swap = &r.MemorySwapLimitInBytes
		}
	}

	for _, h := range r.HugepageLimits {
		out.HugepageLimits = append(
			out.HugepageLimits,
			specs.LinuxHugepageLimit{Pagesize: h.PageSize, Limit: h.Limit},
		)
	}

	// The names of cgroup files are those of v2.
	if v2 {
		out.Unified = r.Unified
	}

	return out
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

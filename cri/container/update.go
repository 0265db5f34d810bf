package container

import (
	"context"
	"fmt"
	"math"
	"path"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// Update changes the resources of a container, all of them or none; those that are 0 stay as they are, -1
// takes a limit away. One that has ended has none: success. That the memory limit is below what is used is
// ErrInUse on cgroup v2; on v1 the kernel refuses it.
func (c *Service) Update(ctx context.Context, id string, asked *runtimeapi.LinuxContainerResources) error {
	r, unlock, err := c.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	alive, err := life.Update(r.life())
	if err != nil {
		return fmt.Errorf("update container %s: %w", r.ID, err)
	}
	if !alive || asked == nil {
		return nil
	}

	u := update{containers: c, Record: r}
	if r.Change != nil {
		// An earlier one that could be neither done nor taken back.
		if err := u.takeBack(ctx); err != nil {
			return fmt.Errorf("update container %s: %w", r.ID, err)
		}
	}

	u.Change = spec.Change(u.inForce(), asked)
	if err := u.fits(); err != nil {
		return fmt.Errorf("update container %s: %w", r.ID, err)
	}

	// The intent is on disk before the kernel is touched: the next start finishes what a kill cuts off.
	if err := u.record(r.CurrentResources(), u.Change); err != nil {
		return err
	}

	return u.finish(ctx)
}

// CurrentResources returns the container's resources: as updated, else as asked for. They must not be
// changed.
func (r Record) CurrentResources() *runtimeapi.LinuxContainerResources {
	if r.Resources != nil {
		return r.Resources
	}
	return r.config.GetLinux().GetResources()
}

// update is the Change of a Record. The caller has the container's lock, or is the only one yet.
type update struct {
	containers *Service
	Record
}

// inForce are the resources that the container has now.
func (u update) inForce() *runtimeapi.LinuxContainerResources {
	return spec.InForce(u.CurrentResources(), u.containers.cfg.Host)
}

// fits returns ErrInUse if the new limit of memory is less than what the container uses: the kernel would
// kill it.
func (u update) fits() error {
	cfg := u.containers.cfg
	limit := u.Change.MemoryLimitInBytes
	if !cfg.Host.CgroupV2 || limit <= 0 || limit == u.CurrentResources().GetMemoryLimitInBytes() {
		return nil
	}

	box, err := cfg.Sandboxes.Get(u.Sandbox)
	if err != nil {
		return err
	}

	used, err := cfg.Groups.MemoryUsage(cfg.Driver.Dir(box.CgroupParent(), u.ID))
	if err == nil && used >= limit {
		err = fmt.Errorf("memory limit of %d bytes: %d bytes are in use: %w", limit, used, ErrInUse)
	}

	return err
}

// finish carries the change out, or takes it back if that fails.
func (u update) finish(ctx context.Context) error {
	current := u.inForce()
	failed := u.apply(ctx, u.Change, current)
	if failed == nil {
		return u.record(spec.Changed(current, u.Change), nil)
	}

	// The kernel may have taken a part of it.
	if err := u.takeBack(ctx); err != nil {
		u.containers.cfg.Log.Warn("update of a container is not taken back", "container", u.ID, "err", err)
	}

	return fmt.Errorf("update container %s: %w", u.ID, failed)
}

// takeBack restores what the container had before the change.
func (u update) takeBack(ctx context.Context) error {
	current := u.CurrentResources()
	if err := u.apply(ctx, spec.Revert(u.inForce(), u.Change), nil); err != nil {
		return fmt.Errorf("take an update back: %w", err)
	}
	return u.record(current, nil)
}

// apply changes resources: crun's by its own hand, others by their OCI runtime. inForce are those that the
// kernel has now, nil if that is not known.
func (u update) apply(ctx context.Context, change, inForce *runtimeapi.LinuxContainerResources) error {
	cfg := u.containers.cfg
	box, err := cfg.Sandboxes.Get(u.Sandbox)
	if err != nil {
		return err
	}

	group := cfg.Driver.Dir(box.CgroupParent(), u.ID)
	handler, err := cfg.Handlers.Find(box.Handler)
	byCrun := err == nil && path.Base(handler.Runtime.Program) == "crun"
	if limits, known := filesOf(change, inForce, cfg.Host); known && byCrun && !cfg.Driver.Systemd {
		return cfg.Groups.Apply(group, limits)
	}

	return u.byRuntime(ctx, change, group)
}

// filesOf returns a change as the files of a control group. It returns false for what only the OCI runtime
// does as it did at the start: on v2 it converts shares by its own formula, CPUs are those of the groups
// above, and a file may have several lines.
func filesOf(change, inForce *runtimeapi.LinuxContainerResources, host spec.Host) (cgroup.Limits, bool) {
	out := cgroup.Limits{
		CPUShares: uint64(change.CpuShares),
		CPUQuota:  change.CpuQuota,
		CPUPeriod: uint64(change.CpuPeriod),
		Memory:    change.MemoryLimitInBytes,
		Swap:      change.MemorySwapLimitInBytes,
		HugePages: pagesOf(change, host),
	}
	if host.CgroupV2 && change.CpuShares == inForce.GetCpuShares() {
		out.CPUShares = 0
	}
	if change.CpusetCpus != "" || change.CpusetMems != "" || host.CgroupV2 && out.CPUShares != 0 {
		return out, false
	}

	if host.CgroupV2 {
		out.Files = change.Unified
	}
	for file := range out.Files {
		if !strings.HasPrefix(file, "memory.") || strings.Contains(file, "/") {
			return out, false
		}
	}

	return out, true
}

// byRuntime has the OCI runtime change resources, and writes what runtimes do not: runc has no update of huge
// pages, and crun 1.8 writes no quota on v1 as a number without a sign, which the kernel refuses.
func (u update) byRuntime(
	ctx context.Context, change *runtimeapi.LinuxContainerResources, group string,
) error {
	cfg := u.containers.cfg
	resources := spec.Resources(change, cfg.Host)
	rest := cgroup.Limits{HugePages: pagesOf(change, cfg.Host)}
	err := cfg.Processes.Update(ctx, u.ID, resources)
	if err != nil && !cfg.Host.CgroupV2 && change.CpuQuota < 0 {
		resources.CPU.Quota = nil
		rest.CPUQuota = change.CpuQuota
		rest.CPUPeriod = uint64(change.CpuPeriod)
		err = cfg.Processes.Update(ctx, u.ID, resources)
	}

	if err != nil {
		return err
	}

	// crun has all limits in a group of its own below a scope.
	if below := group + "/" + cgroup.CrunGroup; cfg.Groups.Exists(below) {
		kept := cgroup.Limits{Files: cgroupdriver.Protections(change.Unified)}
		if err := cfg.Groups.Apply(group, kept); err != nil {
			return err
		}

		group = below
	}

	return cfg.Groups.Apply(group, rest)
}

// pagesOf returns the limits of huge pages in bytes, by the sizes of pages.
func pagesOf(change *runtimeapi.LinuxContainerResources, host spec.Host) map[string]int64 {
	if !host.HugePages || len(change.HugepageLimits) == 0 {
		return nil
	}
	out := map[string]int64{}
	for _, l := range change.HugepageLimits {
		out[l.PageSize] = int64(min(l.Limit, math.MaxInt64))
	}
	return out
}

// record notes the resources that are in force, and a change of them that has begun.
func (u update) record(resources, change *runtimeapi.LinuxContainerResources) error {
	_, err := u.containers.records.Change(u.ID, func(r *Record) bool {
		r.Resources = resources
		r.Change = change
		return true
	})
	return err
}

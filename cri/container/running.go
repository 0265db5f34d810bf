package container

import (
	"context"
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/bundle"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// Running returns a container that runs; the error is ErrNotRunning for one that does not.
func (c *Service) Running(id string) (Record, error) {
	r, err := c.Get(id)
	if err == nil && r.State != life.Running {
		err = fmt.Errorf("container %s: %w", r.ID, ErrNotRunning)
	}
	return r, err
}

// Process returns the process of a running container, from which an exec takes all but its arguments and
// terminal.
func (c *Service) Process(_ context.Context, id string) (specs.Process, error) {
	r, err := c.Running(id)
	if err != nil {
		return specs.Process{}, err
	}
	process, err := bundle.Process(c.dir(r.ID))
	if err != nil {
		return specs.Process{}, fmt.Errorf("container %s: %w", id, err)
	}
	return process, nil
}

// Update changes the resources of a container, all of them or none; those that are 0 stay as they are. One
// that has ended has none: success. That the memory limit is below what is used is ErrInUse on cgroup v2;
// on v1 the kernel says so.
func (c *Service) Update(
	ctx context.Context,
	id string,
	asked *runtimeapi.LinuxContainerResources,
) error {
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

	change := spec.Change(r.CurrentResources(), asked)
	if err := c.fits(r, change); err != nil {
		return fmt.Errorf("update container %s: %w", r.ID, err)
	}

	// The intent is on disk before the kernel is touched: the next start finishes what a kill cuts off.
	r, err = c.records.Change(r.ID, func(r *Record) bool {
		r.Change = change
		return true
	})
	if err != nil {
		return err
	}

	return c.change(ctx, r)
}

// fits returns ErrInUse if the memory limit of a change is less than what the container uses: the kernel
// would kill it.
func (c *Service) fits(r Record, change *runtimeapi.LinuxContainerResources) error {
	limit := change.MemoryLimitInBytes
	if !c.cfg.Host.CgroupV2 || limit <= 0 || limit == r.CurrentResources().GetMemoryLimitInBytes() {
		return nil
	}

	used, err := c.cfg.Groups.MemoryUsage(c.group(r))
	if err == nil && used >= limit {
		err = fmt.Errorf("memory limit of %d bytes: %d bytes are in use: %w", limit, used, ErrInUse)
	}

	return err
}

// group returns the container's control group.
func (c *Service) group(r Record) string {
	parent := ""
	if box, err := c.cfg.Sandboxes.Get(r.Sandbox); err == nil {
		parent = box.CgroupParent()
	}
	return c.cfg.Driver.Dir(parent, r.ID)
}

// change carries out the change that is recorded, or takes it back if that fails.
func (c *Service) change(ctx context.Context, r Record) error {
	current := r.CurrentResources()
	failed := c.apply(ctx, r, r.Change)
	if failed == nil {
		return c.settle(r.ID, spec.Changed(current, r.Change))
	}

	// The kernel may have taken a part of it.
	if err := c.apply(ctx, r, spec.Revert(current, r.Change)); err != nil {
		c.cfg.Log.Warn("update of a container is not taken back", "container", r.ID, "err", err)
	} else if err := c.settle(r.ID, current); err != nil {
		failed = errors.Join(failed, err)
	}

	return fmt.Errorf("update container %s: %w", r.ID, failed)
}

// apply has the OCI runtime change resources.
func (c *Service) apply(ctx context.Context, r Record, change *runtimeapi.LinuxContainerResources) error {
	resources := spec.Resources(change, c.cfg.Host)
	err := c.cfg.Processes.Update(ctx, r.ID, resources)
	if err == nil || c.cfg.Host.CgroupV2 || change.CpuQuota >= 0 {
		return err
	}

	// crun 1.8 writes no quota on v1 as a number without a sign, which the kernel refuses.
	resources.CPU.Quota = nil
	if err := c.cfg.Processes.Update(ctx, r.ID, resources); err != nil {
		return err
	}

	return c.cfg.Groups.Apply(c.group(r), cgroup.Limits{
		CPUQuota:  change.CpuQuota,
		CPUPeriod: uint64(change.CpuPeriod),
	})
}

// settle records the resources that are in force.
func (c *Service) settle(id string, resources *runtimeapi.LinuxContainerResources) error {
	_, err := c.records.Change(id, func(r *Record) bool {
		r.Resources = resources
		r.Change = nil
		return true
	})
	return err
}

// CurrentResources returns the container's resources: as updated, else as asked for. They must not be
// changed.
func (r Record) CurrentResources() *runtimeapi.LinuxContainerResources {
	if r.Resources != nil {
		return r.Resources
	}
	return r.config.GetLinux().GetResources()
}

// ReopenLog makes the monitor open the log's path again, after the log was rotated.
func (c *Service) ReopenLog(ctx context.Context, id string) error {
	r, err := c.Running(id)
	if err != nil {
		return fmt.Errorf("reopen log: %w", err)
	}
	return c.cfg.Processes.ReopenLog(ctx, r.ID)
}

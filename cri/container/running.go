package container

import (
	"context"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/bundle"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/spec"
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

// Update changes the resources of a container that has not ended. Those that are zero stay as they are.
func (c *Service) Update(
	ctx context.Context,
	id string,
	resources *runtimeapi.LinuxContainerResources,
) error {
	r, unlock, err := c.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	if r.State == life.Exited {
		return fmt.Errorf("update container %s: %w", r.ID, ErrNotRunning)
	}
	if resources == nil {
		return nil
	}

	err = c.cfg.Processes.Update(ctx, r.ID, spec.Resources(resources, c.cfg.CgroupV2))
	if err != nil {
		return fmt.Errorf("update container %s: %w", r.ID, err)
	}

	_, err = c.records.Change(r.ID, func(r *Record) bool {
		r.Resources = merged(r.CurrentResources(), resources)
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

// merged returns the resources with those of change that are not zero.
func merged(resources, change *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
	all := &runtimeapi.LinuxContainerResources{}
	if resources != nil {
		proto.Merge(all, resources)
	}
	proto.Merge(all, change)
	return all
}

// ReopenLog makes the monitor open the log's path again, after the log was rotated.
func (c *Service) ReopenLog(ctx context.Context, id string) error {
	r, err := c.Running(id)
	if err != nil {
		return fmt.Errorf("reopen log: %w", err)
	}
	return c.cfg.Processes.ReopenLog(ctx, r.ID)
}

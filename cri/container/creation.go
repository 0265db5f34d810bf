package container

import (
	"context"
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/bundle"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/internal/trace"
	"github.com/trivet-node/trivet/internal/undo"
)

// creation is a container that is being made: its record as far as it is known, and what it is made from.
type creation struct {
	Record
	containers *Service

	pod     sandbox.Record
	image   image.Image
	handler ociruntime.Handler
}

// build does the steps in order; when one fails, those before it are undone.
func (c *creation) build(ctx context.Context) (err error) {
	var u undo.Stack
	defer u.Unwind(ctx, &err)

	// The record comes first, so that the next server undoes what this one has half made.
	if err := c.containers.records.Put(c.ID, c.Record); err != nil {
		return err
	}

	u.Push("container "+c.ID, func(ctx context.Context) error { return c.containers.undo(ctx, c.Record) })

	namespaces, err := c.namespaces()
	if err != nil {
		return err
	}

	cfg := c.containers.cfg
	readOnly := c.config.GetLinux().GetSecurityContext().GetReadonlyRootfs()
	ended := trace.Step(ctx, "root file system and bundle")
	made, err := cfg.Bundles.Make(ctx, bundle.Request{
		ID:                 c.ID,
		Dir:                c.containers.dir(c.ID),
		Container:          c.config,
		Pod:                c.pod.PodConfig(),
		Image:              c.image,
		Namespaces:         namespaces,
		Users:              cfg.Sandboxes.Users(c.pod),
		Files:              cfg.Sandboxes.Mounts(c.pod, readOnly),
		AllowedAnnotations: c.handler.AllowedAnnotations,
	})
	ended(err)
	if err != nil {
		return err
	}

	c.User = made.User
	c.MountedImages = made.MountedImages

	if err := c.createProcess(ctx, made.OOMScoreAdj); err != nil {
		return err
	}
	if err := cfg.Bundles.Created(ctx, c.ID); err != nil {
		return err
	}

	// Nobody would remove the container of a caller that is gone.
	if ctx.Err() != nil {
		return fmt.Errorf("caller is gone: %w", context.Cause(ctx))
	}
	if err := c.complete(); err != nil {
		return err
	}

	// A call that has stopped the sandbox meanwhile has not seen the container.
	return c.containers.checkReady(c.pod.ID)
}

// createProcess has the container's first process made. If the OCI runtime cannot make it, such as for a
// command that does not exist, that is not an error of the creation: the start fails with it, and the
// container has ended then. Clients would repeat the creation without end, whereas a container that has ended
// is restarted, or not, as its pod says.
func (c *creation) createProcess(ctx context.Context, oomScore int) error {
	// Its exit may come at any time from now on, even before Create returns: an init can be killed for its
	// memory as soon as it exists.
	c.containers.ends.expect(c.ID)
	cfg := c.containers.cfg
	ended := trace.Step(ctx, "OCI create")
	pid, err := cfg.Processes.Create(ctx, monitor.Container{
		ID:          c.ID,
		Bundle:      c.containers.dir(c.ID),
		Runtime:     c.handler.Runtime,
		LogPath:     c.LogPath,
		TTY:         c.config.Tty,
		Stdin:       c.config.Stdin,
		StdinOnce:   c.config.StdinOnce,
		Cgroup:      cfg.Driver.Dir(c.pod.CgroupParent(), c.ID),
		OOMScoreAdj: oomScore,
		SharedPID:   c.options().GetPid() != runtimeapi.NamespaceMode_CONTAINER,
	})

	ended(err)

	c.Pid = pid
	if errors.Is(err, monitor.ErrRefused) {
		c.Refused = err.Error()
		c.containers.ends.close(c.ID)
		return nil
	}

	return err
}

// complete makes the container visible to clients.
func (c *creation) complete() error {
	_, err := c.containers.records.Change(c.ID, func(kept *Record) bool {
		// Its exit may have been recorded already.
		early := *kept
		*kept = c.Record
		kept.Complete = true
		if early.State == life.Exited {
			kept.end(early.ending())
		}
		return true
	})
	return err
}

// namespaces adds PID and cgroup to the namespaces that the container has from its pod.
func (c *creation) namespaces() (map[specs.LinuxNamespaceType]string, error) {
	cfg := c.containers.cfg
	all := cfg.Sandboxes.Namespaces(c.pod)
	if cfg.Host.CgroupV2 && !c.config.GetLinux().GetSecurityContext().GetPrivileged() {
		all[specs.CgroupNamespace] = ""
	}

	switch c.options().GetPid() {
	case runtimeapi.NamespaceMode_CONTAINER:
		all[specs.PIDNamespace] = ""
	case runtimeapi.NamespaceMode_POD:
		pin := cfg.Sandboxes.PIDNamespace(c.pod)
		if pin == "" {
			return nil, fmt.Errorf("shared PID namespace: pod sandbox %s was not made with one", c.pod.ID)
		}

		all[specs.PIDNamespace] = pin

	case runtimeapi.NamespaceMode_TARGET:
		id := c.options().TargetId
		target, err := c.containers.Get(id)
		if err != nil {
			return nil, fmt.Errorf("PID namespace of its target: %w", err)
		}
		if target.State != life.Running || target.Sandbox != c.pod.ID {
			return nil, fmt.Errorf("PID namespace of target %s: %w in this pod", id, ErrNotRunning)
		}

		all[specs.PIDNamespace] = fmt.Sprintf("/proc/%d/ns/pid", target.Pid)
	}

	return all, nil
}

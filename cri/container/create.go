package container

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/bundle"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/cri/record"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/internal/undo"
)

// Create makes a container that waits for Start, and returns its ID. Called again for the same name and
// attempt, it returns the one that exists. On an error nothing is left.
func (c *Service) Create(
	ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig,
) (id string, err error) {
	pod, err := c.cfg.Sandboxes.Get(sandboxID)
	if err != nil {
		return "", err
	}

	done := c.creations.begin(pod.ID)
	defer done()

	meta := config.GetMetadata()
	if meta.GetName() == "" {
		return "", fmt.Errorf("%w: metadata has no name", ErrInvalid)
	}

	// A repeated call waits here until the first one has ended.
	unlock, err := c.names.Lock(ctx, fmt.Sprintf("%s/%s/%d", pod.ID, meta.Name, meta.Attempt))
	if err != nil {
		return "", fmt.Errorf("container %s: %w", meta.Name, err)
	}
	defer unlock()

	if existing, ok := c.attempt(pod.ID, meta); ok {
		if existing.State == life.Created && !existing.Discarded {
			return existing.ID, nil
		}

		const format = "container %s attempt %d exists in pod sandbox %s as %s"
		return "", fmt.Errorf(format, meta.Name, meta.Attempt, pod.ID, existing.ID)
	}

	// The sandbox may have been stopped while this call waited.
	if err := c.checkReady(pod.ID); err != nil {
		return "", fmt.Errorf("container %s in %s: %w", meta.Name, pod.ID, err)
	}

	id, err = c.create(ctx, pod, config)
	if err != nil {
		return "", fmt.Errorf("container %s: %w", meta.Name, err)
	}

	return id, nil
}

// attempt returns the container of this name and attempt in a sandbox, if there is one.
func (c *Service) attempt(sandboxID string, meta *runtimeapi.ContainerMetadata) (Record, bool) {
	for _, r := range c.Of(sandboxID) {
		m := r.config.GetMetadata()
		if m.GetName() == meta.Name && m.GetAttempt() == meta.Attempt {
			return r, true
		}
	}
	return Record{}, false
}

// create finds out all that can be known without changing anything, then builds the container.
func (c *Service) create(
	ctx context.Context, pod sandbox.Record, config *runtimeapi.ContainerConfig,
) (id string, err error) {
	raw, err := proto.Marshal(config)
	if err != nil {
		return "", err
	}

	r := Record{
		ID:      record.NewID(),
		Sandbox: pod.ID,
		Raw:     raw,
		Created: time.Now(),
		config:  proto.CloneOf(config),
	}

	img, err := c.findImage(&r)
	if err != nil {
		return "", err
	}

	handler, err := c.cfg.Handlers.Find(pod.Handler)
	if err != nil {
		return "", err
	}

	r.ImageMounts = bundle.MountIDs(r.ID, config)
	r.StopSignal = spec.StopSignal(config.GetStopSignal(), img.Config.Config.StopSignal)
	if logs := pod.PodConfig().GetLogDirectory(); logs != "" && config.LogPath != "" {
		r.LogPath = filepath.Join(logs, config.LogPath)
	}

	return r.ID, c.build(ctx, &r, parts{pod: pod, image: img, handler: handler})
}

// parts are what a container is built from.
type parts struct {
	pod     sandbox.Record
	image   image.Image
	handler ociruntime.Handler
}

// build does the steps in order; when one fails, those before it are undone.
func (c *Service) build(ctx context.Context, r *Record, p parts) (err error) {
	var u undo.Stack
	defer u.Unwind(ctx, &err)

	if err := c.records.Put(r.ID, *r); err != nil {
		return err
	}

	u.Push("container "+r.ID, func(ctx context.Context) error { return c.undo(ctx, *r) })

	namespaces, err := c.namespaces(*r, p.pod)
	if err != nil {
		return err
	}

	readOnly := r.config.GetLinux().GetSecurityContext().GetReadonlyRootfs()
	made, err := c.cfg.Bundles.Make(ctx, bundle.Request{
		ID:                 r.ID,
		Dir:                c.dir(r.ID),
		Container:          r.config,
		Pod:                p.pod.PodConfig(),
		Image:              p.image,
		Namespaces:         namespaces,
		Files:              c.cfg.Sandboxes.Mounts(p.pod, readOnly),
		AllowedAnnotations: p.handler.AllowedAnnotations,
	})
	if err != nil {
		return err
	}

	r.User = made.User
	r.MountedImages = made.MountedImages

	if err := c.createProcess(ctx, r, p, made.OOMScoreAdj); err != nil {
		return err
	}

	// Nobody would remove the container of a caller that is gone.
	if ctx.Err() != nil {
		return fmt.Errorf("caller is gone: %w", context.Cause(ctx))
	}
	if err := c.complete(r); err != nil {
		return err
	}

	// A call that has stopped the sandbox meanwhile has not seen the container.
	return c.checkReady(p.pod.ID)
}

// checkReady returns an error if a sandbox does not take containers.
func (c *Service) checkReady(sandboxID string) error {
	pod, err := c.cfg.Sandboxes.Get(sandboxID)
	if err == nil && pod.State != life.Ready {
		err = sandbox.ErrNotReady
	}
	return err
}

// createProcess has the container's first process made. If the OCI runtime cannot make it, such as for a
// command that does not exist, that is not an error of the creation: the start fails with it, and the
// container has ended then. Clients would repeat the creation without end, whereas a container that has ended
// is restarted, or not, as its pod says.
func (c *Service) createProcess(ctx context.Context, r *Record, p parts, oomScore int) error {
	// Its exit may come at any time from now on, even before Create returns: an init can be killed for its
	// memory as soon as it exists.
	c.ends.expect(r.ID)
	pid, err := c.cfg.Processes.Create(ctx, monitor.Container{
		ID:          r.ID,
		Bundle:      c.dir(r.ID),
		Runtime:     p.handler.Runtime,
		LogPath:     r.LogPath,
		TTY:         r.config.Tty,
		Stdin:       r.config.Stdin,
		StdinOnce:   r.config.StdinOnce,
		Cgroup:      c.cfg.Driver.Dir(p.pod.CgroupParent(), r.ID),
		OOMScoreAdj: oomScore,
		SharedPID:   r.options().GetPid() != runtimeapi.NamespaceMode_CONTAINER,
	})

	r.Pid = pid
	if errors.Is(err, monitor.ErrRefused) {
		r.Refused = err.Error()
		c.ends.close(r.ID)
		return nil
	}

	return err
}

// complete makes the container visible to clients.
func (c *Service) complete(r *Record) error {
	_, err := c.records.Change(r.ID, func(kept *Record) bool {
		// Its exit may have been recorded already.
		early := *kept
		*kept = *r
		kept.Complete = true
		if early.State == life.Exited {
			kept.end(early.ending())
		}
		return true
	})
	return err
}

// undo destroys a container that was not finished. One that cannot be destroyed now is listed as exited, so
// that it is removed with its pod.
func (c *Service) undo(ctx context.Context, r Record) error {
	err := c.destroy(ctx, r)
	if err == nil {
		return nil
	}
	r.Complete = true
	r.end(life.NotUndone(err, time.Now()))
	return errors.Join(err, c.records.Put(r.ID, r))
}

// namespaces adds PID and cgroup to the namespaces that the container has from its pod.
func (c *Service) namespaces(r Record, pod sandbox.Record) (map[specs.LinuxNamespaceType]string, error) {
	all := c.cfg.Sandboxes.Namespaces(pod)
	if c.cfg.CgroupV2 && !r.config.GetLinux().GetSecurityContext().GetPrivileged() {
		all[specs.CgroupNamespace] = ""
	}

	switch r.options().GetPid() {
	case runtimeapi.NamespaceMode_CONTAINER:
		all[specs.PIDNamespace] = ""
	case runtimeapi.NamespaceMode_POD:
		pin := c.cfg.Sandboxes.PIDNamespace(pod)
		if pin == "" {
			return nil, fmt.Errorf("shared PID namespace: pod sandbox %s was not made with one", pod.ID)
		}

		all[specs.PIDNamespace] = pin

	case runtimeapi.NamespaceMode_TARGET:
		id := r.options().TargetId
		target, err := c.Get(id)
		if err != nil {
			return nil, fmt.Errorf("PID namespace of its target: %w", err)
		}
		if target.State != life.Running || target.Sandbox != pod.ID {
			return nil, fmt.Errorf("PID namespace of target %s: %w in this pod", id, ErrNotRunning)
		}

		all[specs.PIDNamespace] = fmt.Sprintf("/proc/%d/ns/pid", target.Pid)
	}

	return all, nil
}

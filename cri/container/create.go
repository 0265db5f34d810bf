package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/account"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/internal/undo"
)

// ErrSandboxNotReady says that a stopped sandbox takes no new containers.
var ErrSandboxNotReady = errors.New("pod sandbox is not ready")

// Create makes a container that waits for Start. Called again for the same name and attempt, it returns the
// one that is there.
func (c *Containers) Create(
	ctx context.Context,
	sandboxID string,
	config *runtimeapi.ContainerConfig,
) (id string, err error) {
	box, err := c.cfg.Sandboxes.Get(sandboxID)
	if err != nil {
		return "", err
	}

	meta := config.GetMetadata()
	if meta.GetName() == "" {
		return "", errors.New("container: metadata has no name")
	}

	unlock, err := c.names.Lock(ctx, fmt.Sprintf("%s/%s/%d", box.ID, meta.Name, meta.Attempt))
	if err != nil {
		return "", fmt.Errorf("container %s: %w", meta.Name, err)
	}
	defer unlock()

	for _, r := range c.Of(box.ID) {
		m := r.config.GetMetadata()
		if m.GetName() == meta.Name && m.GetAttempt() == meta.Attempt {
			if r.State == runtimeapi.ContainerState_CONTAINER_CREATED && !r.Discarded {
				return r.ID, nil
			}

			return "", fmt.Errorf("container %s attempt %d exists in pod sandbox %s as %s",
				meta.Name, meta.Attempt, box.ID, r.ID)
		}
	}

	if box, err = c.cfg.Sandboxes.Get(sandboxID); err != nil || box.State != sandbox.Ready {
		return "", errors.Join(
			fmt.Errorf("container %s in %s: %w", meta.Name, sandboxID, ErrSandboxNotReady),
			err,
		)
	}

	raw, err := proto.Marshal(config)
	if err != nil {
		return "", fmt.Errorf("container %s: %w", meta.Name, err)
	}

	r := Record{
		ID:      sandbox.NewID(),
		Sandbox: box.ID,
		Raw:     raw,
		Created: time.Now(),
		config:  proto.CloneOf(config),
	}
	if err := c.build(ctx, &r, box); err != nil {
		return "", fmt.Errorf("container %s: %w", meta.Name, err)
	}

	c.notify(Event{
		ID:      r.ID,
		Sandbox: r.Sandbox,
		Type:    runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT,
		At:      r.Created,
	})

	return r.ID, nil
}

// build does the steps in order; when one fails, those before are taken back.
func (c *Containers) build(ctx context.Context, r *Record, box sandbox.Record) (err error) {
	img, err := c.findImage(r)
	if err != nil {
		return err
	}

	runtime, err := c.cfg.Runtime(box.Handler)
	if err != nil {
		return err
	}

	r.ImageID = img.ID
	r.StopSignal = spec.StopSignal(r.config.GetStopSignal(), img.Config.Config.StopSignal)
	if r.config.LogPath != "" && box.PodConfig().GetLogDirectory() != "" {
		r.LogPath = filepath.Join(box.PodConfig().LogDirectory, r.config.LogPath)
	}

	var u undo.Stack
	defer u.Unwind(ctx, &err)

	for i, m := range r.config.Mounts {
		if m.GetImage().GetImage() != "" {
			r.Volumes = append(r.Volumes, fmt.Sprintf("%s-volume%d", r.ID, i))
		}
	}

	if err := c.store.Put(r.ID, *r); err != nil {
		return fmt.Errorf("record: %w", err)
	}

	u.Push("container "+r.ID, func(ctx context.Context) error { return c.takeBack(ctx, *r) })
	root, err := c.cfg.Rootfs.Prepare(ctx, r.ID, img)
	if err != nil {
		return err
	}

	oci, err := c.specOf(ctx, r, box, img, root)
	if err != nil {
		return err
	}
	if err := writeSpec(c.dir(r.ID), oci); err != nil {
		return err
	}

	c.expect(r.ID)
	defer c.settle(r.ID)

	if err := c.makeProcess(ctx, r, box, runtime, oci); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("caller gave up: %w", context.Cause(ctx))
	}

	r.State, r.Made = runtimeapi.ContainerState_CONTAINER_CREATED, true
	c.mu.Lock()
	defer c.mu.Unlock()

	if err := c.store.Put(r.ID, *r); err != nil {
		return fmt.Errorf("record: %w", err)
	}

	c.all[r.ID] = *r
	if r.Refused == "" {
		c.done[r.ID] = make(chan struct{})
	}

	return nil
}

// makeProcess has the container's first process made. A command that is not there, or anything else for
// which the OCI runtime cannot make the container, is no error of the creation: it is told at the start,
// which ends the container. Clients would try the creation again forever, while one that has ended is
// restarted, or not, as its pod says.
func (c *Containers) makeProcess(
	ctx context.Context, r *Record, box sandbox.Record, runtime ociruntime.Runtime, oci *specs.Spec,
) (err error) {
	options := r.config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	r.Pid, err = c.cfg.Monitor.Create(ctx, monitor.Container{
		ID:          r.ID,
		Bundle:      c.dir(r.ID),
		Runtime:     runtime,
		LogPath:     r.LogPath,
		TTY:         r.config.Tty,
		Stdin:       r.config.Stdin,
		StdinOnce:   r.config.StdinOnce,
		Cgroup:      c.cfg.Group(box.PodConfig().GetLinux().GetCgroupParent(), r.ID),
		OOMScoreAdj: *oci.Process.OOMScoreAdj,
		SharedPID:   options.GetPid() != runtimeapi.NamespaceMode_CONTAINER,
	})
	if errors.Is(err, monitor.ErrRefused) {
		r.Refused, err = err.Error(), nil
	}

	return err
}

// takeBack destroys a container that was not finished. One that cannot be destroyed now is listed as exited,
// so that it is removed with its pod.
func (c *Containers) takeBack(ctx context.Context, r Record) error {
	err := c.destroy(ctx, r)
	if err == nil {
		return nil
	}

	r.State, r.Made, r.Finished, r.Code, r.Reason, r.Message = runtimeapi.ContainerState_CONTAINER_EXITED, true, time.Now(), 128, "ContainerCannotRun", err.Error()
	c.mu.Lock()
	defer c.mu.Unlock()

	c.all[r.ID] = r
	if recorded := c.store.Put(r.ID, r); recorded != nil {
		return errors.Join(err, fmt.Errorf("record: %w", recorded))
	}

	return err
}

// expect and settle keep an exit that the monitor reports before the container's record is in memory: an init
// can be killed (out of memory) in the moment that it is made.
func (c *Containers) expect(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.making[id] = nil
}

func (c *Containers) settle(id string) {
	c.mu.Lock()
	early := c.making[id]
	delete(c.making, id)
	c.mu.Unlock()
	if early != nil {
		c.ended(*early)
	}
}

func (c *Containers) specOf(
	ctx context.Context,
	r *Record,
	box sandbox.Record,
	img image.Image,
	root string,
) (*specs.Spec, error) {
	security := r.config.GetLinux().GetSecurityContext()
	user, err := account.Resolve(root, img.Config.Config.User, security)
	if err != nil {
		return nil, err
	}

	r.User = user
	namespaces, err := c.namespaces(*r, box)
	if err != nil {
		return nil, err
	}

	volumes, err := c.mountImages(ctx, r)
	if err != nil {
		return nil, err
	}

	host := c.cfg.Host
	if host.Hostname, err = os.Hostname(); err != nil {
		return nil, fmt.Errorf("host name of the node: %w", err)
	}

	files := c.cfg.Sandboxes.Mounts(box, security.GetReadonlyRootfs())
	declared, err := c.imageVolumes(r, img, files)
	if err != nil {
		return nil, err
	}

	cfg := spec.Config{
		ID:                 r.ID,
		Container:          r.config,
		Sandbox:            box.PodConfig(),
		Image:              img.Config.Config,
		Rootfs:             root,
		User:               user,
		Namespaces:         namespaces,
		CgroupsPath:        c.cfg.Cgroup(box.PodConfig().GetLinux().GetCgroupParent(), r.ID),
		Files:              append(files, declared...),
		ImageMounts:        volumes,
		Host:               host,
		AllowedAnnotations: c.cfg.AllowedAnnotations(box.Handler),
	}
	if cfg.AppArmor, err = c.appArmorProfile(ctx, security); err != nil {
		return nil, err
	}
	if cfg.Localhost, err = c.localSeccomp(security); err != nil {
		return nil, err
	}

	if security.GetPrivileged() {
		if cfg.Host.Devices, err = spec.Devices("/dev"); err != nil {
			return nil, fmt.Errorf("host devices: %w", err)
		}
	}

	if err := makeSources(r.config.Mounts); err != nil {
		return nil, err
	}

	return spec.Generate(cfg)
}

// localSeccomp reads the profile of a container that asks for one of the node's.
func (c *Containers) localSeccomp(security *runtimeapi.LinuxContainerSecurityContext) ([]byte, error) {
	p := security.GetSeccomp()
	if p.GetProfileType() != runtimeapi.SecurityProfile_Localhost || security.GetPrivileged() {
		return nil, nil
	}

	path := p.LocalhostRef
	if !filepath.IsAbs(path) {
		path = filepath.Join(c.cfg.SeccompDir, path)
	}

	profile, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}

	return profile, nil
}

// makeSources makes directories for host paths that are not there, as all runtimes do.
func makeSources(mounts []*runtimeapi.Mount) error {
	for _, m := range mounts {
		if m.HostPath == "" {
			continue
		}
		if _, err := os.Stat(m.HostPath); errors.Is(err, os.ErrNotExist) {
			if err := os.MkdirAll(m.HostPath, 0o755); err != nil {
				return fmt.Errorf("make host path of mount %s: %w", m.ContainerPath, err)
			}
		}
	}
	return nil
}

// namespaces adds PID and cgroup to those of the pod.
func (c *Containers) namespaces(r Record, box sandbox.Record) (map[specs.LinuxNamespaceType]string, error) {
	all := c.cfg.Sandboxes.Namespaces(box)
	o := r.config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	switch o.GetPid() {
	case runtimeapi.NamespaceMode_CONTAINER:
		all[specs.PIDNamespace] = ""
	case runtimeapi.NamespaceMode_POD:
		pin := c.cfg.Sandboxes.PIDNamespace(box)
		if pin == "" {
			return nil, fmt.Errorf("shared PID namespace: pod sandbox %s was not made with one", box.ID)
		}

		all[specs.PIDNamespace] = pin

	case runtimeapi.NamespaceMode_TARGET:
		target, err := c.Get(o.TargetId)
		if err != nil {
			return nil, fmt.Errorf("PID namespace of its target: %w", err)
		}
		if target.State != runtimeapi.ContainerState_CONTAINER_RUNNING || target.Sandbox != box.ID {
			return nil, fmt.Errorf("PID namespace of target %s: %w in this pod", o.TargetId, ErrNotRunning)
		}

		all[specs.PIDNamespace] = fmt.Sprintf("/proc/%d/ns/pid", target.Pid)
	}

	if c.cfg.Host.CgroupV2 && !r.config.GetLinux().GetSecurityContext().GetPrivileged() {
		all[specs.CgroupNamespace] = ""
	}

	return all, nil
}

// mountImages mounts the image volumes.
func (c *Containers) mountImages(ctx context.Context, r *Record) (map[string]string, error) {
	paths := map[string]string{}
	for i, m := range r.config.Mounts {
		name := m.GetImage().GetImage()
		if name == "" {
			continue
		}

		img, err := c.cfg.Images.Get(name)
		if err != nil {
			return nil, fmt.Errorf("image volume %s: %w", m.ContainerPath, err)
		}

		dir, err := c.cfg.Rootfs.PrepareReadOnly(ctx, fmt.Sprintf("%s-volume%d", r.ID, i), img)
		if err != nil {
			return nil, fmt.Errorf("image volume %s: %w", m.ContainerPath, err)
		}
		if r.VolumeIDs == nil {
			r.VolumeIDs = map[string]string{}
		}

		r.VolumeIDs[m.ContainerPath] = img.ID
		if dir, err = inside(dir, m.ImageSubPath); err != nil {
			return nil, fmt.Errorf("image volume %s: sub-path %q: %w", m.ContainerPath, m.ImageSubPath, err)
		}

		paths[m.ContainerPath] = dir
	}

	return paths, nil
}

// inside finds a sub-path of an image, whose symlinks cannot lead out. The image is read-only, so the path
// found stays true.
func inside(root, sub string) (string, error) {
	if sub == "" {
		return root, nil
	}

	f, err := pathrs.OpenInRoot(root, sub)
	if err != nil {
		return "", err
	}
	defer f.Close()

	found, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err == nil && !strings.HasPrefix(found, root) {
		err = errors.New("leads out of the image")
	}

	return found, err
}

func writeSpec(dir string, s *specs.Spec) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode spec: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600)
}

func readSpec(dir string) (*specs.Spec, error) {
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	return &s, nil
}

package podworker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/hook"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/podlog"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/reason"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/termination"
	"github.com/trivet-node/trivet/node/volume"
)

// Reasons of containers that could not be started, kubelet's.
const (
	configError = "CreateContainerConfigError"
	createError = "CreateContainerError"
	runError    = "RunContainerError"
	hookError   = "PostStartHookError"
)

// start creates and starts one instance of a container and runs its postStart hook.
func (e *executor) start(ctx context.Context, p *pod, view *plan.View, s plan.Step) error {
	spec := podspec.Find(view.Pod, s.Name)
	if spec == nil {
		return fmt.Errorf("container %s is not in the spec", s.Name)
	}

	config, err := e.containerConfig(ctx, p, view, s, spec)
	if err != nil && reason.Of(err) == "" {
		// Only the errors of image volumes have a reason already.
		err = reason.New(configError, err)
	}

	if err != nil {
		return err
	}

	if err := criconfig.CheckText(config); err != nil {
		return reason.New(runError, err)
	}

	sandbox, err := e.sandboxConfig(ctx, view.Pod, view.Sandbox.Attempt)
	if err != nil {
		return reason.New(configError, err)
	}
	if err := e.cfg.Logs.MakeDir(view.Pod, spec.Name); err != nil {
		return reason.New(createError, err)
	}

	id, err := e.run(ctx, view.Pod, s, config, sandbox)
	if err != nil {
		return err
	}

	return e.postStart(ctx, view, spec, id)
}

// run has the runtime create and start the instance, and returns its ID. Only this takes a slot: images and
// hooks may take long whatever the node does, and a hook may wait for another pod of this node.
func (e *executor) run(
	ctx context.Context,
	pod *v1.Pod,
	s plan.Step,
	config *runtime.ContainerConfig,
	sandbox *runtime.SandboxConfig,
) (id string, err error) {
	release, err := e.starts.Take(ctx)
	if err != nil {
		return "", err
	}
	defer release()

	id, err = e.deps.Runtime.CreateContainer(ctx, s.ID, config, sandbox)
	if err != nil {
		return "", reason.New(createError, err)
	}

	e.deps.Events.Pod(pod, s.Name, v1.EventTypeNormal, "Created", "Container created")

	// A runtime may show the end of an instance that it cannot start before it says so. The step is not
	// wanted any more then, but why it failed is.
	if err := e.deps.Runtime.StartContainer(context.WithoutCancel(ctx), id); err != nil {
		return "", answered{reason.New(runError, err)}
	}

	// Log collectors need the link, the container does not.
	instance := podlog.Instance{
		Pod:       pod,
		Container: s.Name,
		Attempt:   s.Attempt,
		ID:        id,
	}
	if err := e.cfg.Logs.Link(instance); err != nil {
		e.deps.Log.Warn("link log", "pod", pod.Namespace+"/"+pod.Name, "container", s.Name, "err", err)
	}

	e.deps.Events.Pod(pod, s.Name, v1.EventTypeNormal, "Started", "Container started")
	return id, nil
}

// answered is an error of a call that was not cancelled, whatever became of its step meanwhile.
type answered struct{ error }

func (a answered) Unwrap() error { return a.error }

// postStart runs the container's postStart hook, if it has one. An instance whose hook fails is stopped.
func (e *executor) postStart(ctx context.Context, view *plan.View, spec *v1.Container, id string) error {
	if spec.Lifecycle == nil || spec.Lifecycle.PostStart == nil {
		return nil
	}

	target := hook.Target{ID: id, Spec: spec, IP: firstIP(view.IPs(e.cfg.HostIPs))}
	err := hook.Run(ctx, e.deps.Runtime, spec.Lifecycle.PostStart, target)
	if err == nil || ctx.Err() != nil {
		return err
	}

	message := fmt.Sprintf("PostStartHook failed: %v", err)
	e.deps.Events.Pod(view.Pod, spec.Name, v1.EventTypeWarning, "FailedPostStartHook", message)
	e.deps.Events.Pod(view.Pod, spec.Name, v1.EventTypeNormal, "Killing", "FailedPostStartHook")
	stopped := e.deps.Runtime.StopContainer(ctx, id, plan.Grace(view.Pod))
	return reason.New(hookError, errors.Join(err, stopped))
}

// containerConfig gathers what a container is created with: image, environment, mounts and devices.
func (e *executor) containerConfig(
	ctx context.Context,
	p *pod,
	view *plan.View,
	s plan.Step,
	spec *v1.Container,
) (*runtime.ContainerConfig, error) {
	volumes, have, err := p.prepared(spec)
	if err != nil {
		return nil, err
	}

	ips := view.IPs(e.cfg.HostIPs)
	env, err := podenv.Make(ctx, podenv.Request{
		Pod:       view.Pod,
		Container: spec,
		PodIPs:    ips,
		Node:      e.cfg.Env,
		Source:    e.deps.Objects,
		Files:     e.deps.Volumes,
		Static:    podsource.Static(view.Pod),
	})
	if err != nil {
		return nil, err
	}

	out := criconfig.Container{
		Spec:      spec,
		Attempt:   s.Attempt,
		ImageRef:  have.ID,
		ImageUser: criconfig.User{UID: have.UID, Name: have.Username},
		Groups:    volumes.Groups,
		Command:   podenv.ExpandAll(spec.Command, env),
		Args:      podenv.ExpandAll(spec.Args, env),
		Env:       env,
	}

	mounts, devices, err := e.deps.Volumes.Container(view.Pod, spec, volumes, env)
	if err != nil {
		return nil, err
	}

	out.Devices = deviceConfigs(devices)
	if out.Mounts, err = e.mounts(ctx, view.Pod, spec, mounts); err != nil {
		return nil, err
	}
	if out.Mounts, err = e.addOwnMounts(out.Mounts, view.Pod, spec, ips, s.Attempt); err != nil {
		return nil, err
	}
	if out.Target, err = target(view, spec.Name); err != nil {
		return nil, err
	}
	if out.Users, err = e.users(ctx, view.Pod); err != nil {
		return nil, err
	}

	return criconfig.CreateContainer(e.cfg.Node, view.Pod, out)
}

// prepared returns what earlier steps have left for the start of a container: the pod's volumes and the
// image.
func (p *pod) prepared(c *v1.Container) (*volume.Volumes, *image, error) {
	p.mu.Lock()
	defer p.mu.Unlock()

	if p.volumes == nil {
		return nil, nil, errors.New("the pod's volumes are not mounted")
	}

	// The spec may have been changed, and a pull for the new image have ended just now.
	have := p.images[c.Name]
	if have == nil || have.name != c.Image {
		return nil, nil, fmt.Errorf("image %s is not at hand any more", c.Image)
	}

	return p.volumes, have, nil
}

// deviceConfigs translates the devices of a container for its CRI configuration.
func deviceConfigs(in []volume.Device) []criconfig.Device {
	var out []criconfig.Device
	for _, d := range in {
		out = append(out, criconfig.Device{
			ContainerPath: d.ContainerPath,
			HostPath:      d.HostPath,
			ReadOnly:      d.ReadOnly,
		})
	}
	return out
}

// mounts returns the mounts of a container's volumes. Images among them are pulled, and named as the runtime
// knows those that the pod may use.
func (e *executor) mounts(
	ctx context.Context,
	pod *v1.Pod,
	c *v1.Container,
	in []volume.Mount,
) ([]criconfig.Mount, error) {
	recursive, err := e.recursiveReadOnly(ctx, pod, in)
	if err != nil {
		return nil, err
	}

	var out []criconfig.Mount
	for _, m := range in {
		deep, err := m.RecursiveReadOnly(recursive)
		if err != nil {
			return nil, err
		}

		one := criconfig.Mount{
			ContainerPath:     m.ContainerPath,
			HostPath:          m.HostPath,
			ReadOnly:          m.ReadOnly,
			RecursiveReadOnly: deep,
			Propagation:       m.Propagation,
		}
		if m.Image != nil {
			have, err := e.volumeImage(ctx, pod, c, m.Image)
			if err != nil {
				return nil, err
			}

			one.ImageID = have.ID
			one.Image = m.Image.Reference
			one.ImageSubPath = m.ImageSubPath
		}

		out = append(out, one)
	}

	return out, nil
}

// volumeImage returns an image that a container mounts, pulled if need be. Events and errors are those of the
// container.
func (e *executor) volumeImage(
	ctx context.Context,
	pod *v1.Pod,
	c *v1.Container,
	image *v1.ImageVolumeSource,
) (*runtime.Image, error) {
	as := c.DeepCopy()
	as.Image, as.ImagePullPolicy = image.Reference, image.PullPolicy
	return e.deps.Images.Ensure(ctx, pod, as)
}

// recursiveReadOnly reports whether the pod's runtime handler supports recursive read-only mounts. It is
// looked up only if a mount asks for one.
func (e *executor) recursiveReadOnly(ctx context.Context, pod *v1.Pod, mounts []volume.Mount) (bool, error) {
	if !slices.ContainsFunc(mounts, func(m volume.Mount) bool { return m.Recursive != "" }) {
		return false, nil
	}

	handler, err := e.handler(ctx, pod)
	if err != nil {
		return false, err
	}

	for _, h := range e.cfg.Handlers() {
		if h.Name == handler && h.Features != nil {
			return h.Features.RecursiveReadOnlyMounts != nil && *h.Features.RecursiveReadOnlyMounts, nil
		}
	}

	return false, nil
}

// addOwnMounts adds the mounts that every container has: the file for its termination message, and /etc/hosts
// unless a volume is mounted there.
func (e *executor) addOwnMounts(
	mounts []criconfig.Mount,
	pod *v1.Pod,
	c *v1.Container,
	ips []string,
	attempt uint32,
) ([]criconfig.Mount, error) {
	const hosts = "/etc/hosts"
	taken := func(m criconfig.Mount) bool { return filepath.Clean(m.ContainerPath) == hosts }
	if !slices.ContainsFunc(mounts, taken) {
		file, err := e.hosts.Write(e.podDir(pod), pod, ips)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", hosts, err)
		}

		mounts = append(mounts, criconfig.Mount{ContainerPath: hosts, HostPath: file})
	}

	file, err := termination.Create(e.podDir(pod), c.Name, attempt)
	if err != nil {
		return nil, err
	}

	path := cmp.Or(c.TerminationMessagePath, v1.TerminationMessagePathDefault)
	return append(mounts, criconfig.Mount{ContainerPath: path, HostPath: file}), nil
}

// target is the container whose processes an ephemeral container wants to see.
func target(view *plan.View, name string) (id string, err error) {
	for _, e := range view.Pod.Spec.EphemeralContainers {
		if e.Name != name || e.TargetContainerName == "" {
			continue
		}

		for _, c := range view.Instances(e.TargetContainerName) {
			if c.State == plan.Running {
				return c.ID, nil
			}
		}

		return "", fmt.Errorf("target container %s does not run", e.TargetContainerName)
	}

	return "", nil
}

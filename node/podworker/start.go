package podworker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/hook"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/volume"
)

// start creates and starts one instance of a container and runs its postStart hook. An instance whose hook
// failed is stopped, as the API documents.
func (w *Worker) start(ctx context.Context, p *pod, in plan.Input, s plan.Step) error {
	spec := findSpec(in.Pod, s.Name)
	if spec == nil {
		return fmt.Errorf("container %s is not in the spec", s.Name)
	}

	config, err := w.containerConfig(ctx, p, in, s, spec)
	if _, named := errors.AsType[*failure](err); named {
		return err
	}
	if err != nil {
		return fail("CreateContainerConfigError", err)
	}
	if err := checkText(config); err != nil {
		return fail("RunContainerError", err)
	}

	sandbox, err := w.sandboxConfig(in.Pod, sandboxAttempt(in, s.ID))
	if err != nil {
		return fail("CreateContainerConfigError", err)
	}
	if err := os.MkdirAll(filepath.Join(sandbox.LogDirectory, spec.Name), 0o755); err != nil {
		return fail("CreateContainerError", err)
	}

	id, err := w.run(ctx, in, s, config, sandbox)
	if err != nil {
		return err
	}

	return w.postStart(ctx, in, s, spec, id)
}

// checkText refuses what execve(2) would cut: some runtimes do not look, and the process would get another
// value than the pod says.
func checkText(config *cri.ContainerConfig) error {
	for _, kv := range config.Envs {
		if bytes.IndexByte(kv.Value, 0) >= 0 {
			return fmt.Errorf("environment variable %q has a NUL byte", kv.Key)
		}
	}
	for i, arg := range slices.Concat(config.Command, config.Args) {
		if strings.IndexByte(arg, 0) >= 0 {
			return fmt.Errorf("argument %d of the command has a NUL byte", i)
		}
	}
	return nil
}

// run has the runtime create and start the instance. Only this takes a slot: how long images and hooks take
// is up to others, and a hook may wait for another pod of this node.
func (w *Worker) run(
	ctx context.Context,
	in plan.Input,
	s plan.Step,
	config *cri.ContainerConfig,
	sandbox *cri.PodSandboxConfig,
) (id string, err error) {
	select {
	case w.starts <- struct{}{}:
		defer func() { <-w.starts }()
	case <-ctx.Done():
		return "", ctx.Err()
	}

	if id, err = w.runtime.CreateContainer(ctx, s.ID, config, sandbox); err != nil {
		return "", fail("CreateContainerError", err)
	}

	w.events.Pod(in.Pod, s.Name, v1.EventTypeNormal, "Created", "Container created")
	if err := w.runtime.StartContainer(ctx, id); err != nil {
		return "", fail("RunContainerError", err)
	}

	// it runs nevertheless
	if err := w.link(in.Pod, s.Name, s.Attempt, id); err != nil {
		w.log.Warn("link log", "pod", in.Pod.Namespace+"/"+in.Pod.Name, "container", s.Name, "err", err)
	}

	w.events.Pod(in.Pod, s.Name, v1.EventTypeNormal, "Started", "Container started")
	return id, nil
}

func (w *Worker) postStart(
	ctx context.Context,
	in plan.Input,
	s plan.Step,
	spec *v1.Container,
	id string,
) error {
	if spec.Lifecycle == nil || spec.Lifecycle.PostStart == nil {
		return nil
	}

	err := hook.Run(
		ctx,
		w.runtime,
		spec.Lifecycle.PostStart,
		hook.Target{ID: id, Spec: spec, IP: firstIP(w.podIPs(in.Pod, in.Observed))},
	)
	if err == nil || ctx.Err() != nil {
		return err
	}

	w.events.Pod(
		in.Pod,
		s.Name,
		v1.EventTypeWarning,
		"FailedPostStartHook",
		fmt.Sprintf("PostStartHook failed: %v", err),
	)

	w.events.Pod(in.Pod, s.Name, v1.EventTypeNormal, "Killing", "FailedPostStartHook")
	grace := plan.Grace(in.Pod)
	return fail("PostStartHookError", errors.Join(err, w.runtime.StopContainer(ctx, id, grace)))
}

// containerConfig gathers environment, mounts and files.
func (w *Worker) containerConfig(
	ctx context.Context,
	p *pod,
	in plan.Input,
	s plan.Step,
	spec *v1.Container,
) (*cri.ContainerConfig, error) {
	p.mu.Lock()
	volumes, img := p.volumes, p.images[s.Name]
	p.mu.Unlock()
	if img.name != spec.Image {
		// the spec was changed and a pull for it has ended just now
		return nil, fmt.Errorf("image %s is not at hand any more", spec.Image)
	}

	ips := w.podIPs(in.Pod, in.Observed)
	env, err := podenv.Make(ctx, podenv.Request{
		Pod:       in.Pod,
		Container: spec,
		PodIPs:    ips,
		Node:      w.Env,
		Source:    w.objects,
		Files:     w.volumes,
		Static:    podsource.Static(in.Pod),
	})
	if err != nil {
		return nil, err
	}
	if volumes == nil {
		return nil, errors.New("the pod's volumes are not mounted")
	}

	mounts, devices, err := w.volumes.Container(in.Pod, spec, volumes, env)
	if err != nil {
		return nil, err
	}
	if err := w.pullVolumes(ctx, in.Pod, spec, mounts); err != nil {
		return nil, err
	}

	recursive, err := w.recursiveReadOnly(ctx, in.Pod, mounts)
	if err != nil {
		return nil, err
	}

	out := criconfig.Container{
		Spec:      spec,
		Attempt:   s.Attempt,
		ImageRef:  img.ref,
		ImageUser: img.user,
		Groups:    volumes.Groups,
		Command:   podenv.ExpandAll(spec.Command, env),
		Args:      podenv.ExpandAll(spec.Args, env),
		Devices:   criDevices(devices),
	}
	if out.Mounts, err = criMounts(mounts, recursive); err != nil {
		return nil, err
	}

	for _, v := range env {
		out.Env = append(out.Env, &cri.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}

	if out.Mounts, err = w.ownMounts(in.Pod, spec, ips, s.Attempt, out.Mounts); err != nil {
		return nil, err
	}
	if out.Target, err = target(in, spec.Name); err != nil {
		return nil, err
	}

	return criconfig.CreateContainer(w.Node, in.Pod, out)
}

// ownMounts adds /etc/hosts and the file for the termination message.
func (w *Worker) ownMounts(
	pod *v1.Pod,
	c *v1.Container,
	ips []string,
	attempt uint32,
	mounts []*cri.Mount,
) ([]*cri.Mount, error) {
	taken := map[string]bool{}
	for _, m := range mounts {
		taken[filepath.Clean(m.ContainerPath)] = true
	}

	if !taken["/etc/hosts"] {
		path, err := w.hostsFile(pod, ips)
		if err != nil {
			return nil, fmt.Errorf("/etc/hosts: %w", err)
		}

		mounts = append(mounts, &cri.Mount{ContainerPath: "/etc/hosts", HostPath: path})
	}

	path := c.TerminationMessagePath
	if path == "" {
		path = v1.TerminationMessagePathDefault
	}

	dir := filepath.Join(w.podDir(pod), "containers", c.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}

	file := filepath.Join(dir, messageFile(attempt))
	f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o666)
	if err != nil {
		return nil, err
	}

	// whoever the container runs as may write to it
	if err := errors.Join(f.Chmod(0o666), f.Close()); err != nil {
		return nil, err
	}

	return append(mounts, &cri.Mount{ContainerPath: path, HostPath: file}), nil
}

// target is the container whose processes an ephemeral container wants to see.
func target(in plan.Input, name string) (id string, err error) {
	for _, e := range in.Pod.Spec.EphemeralContainers {
		if e.Name != name || e.TargetContainerName == "" {
			continue
		}

		for _, c := range in.Observed.Containers {
			if c.Name == e.TargetContainerName && c.State == plan.Running {
				return c.ID, nil
			}
		}

		return "", fmt.Errorf("target container %s does not run", e.TargetContainerName)
	}

	return "", nil
}

// criMounts are the mounts of a container. recursive is whether the runtime can make a mount read-only with
// all below it.
func criMounts(in []volume.Mount, recursive bool) ([]*cri.Mount, error) {
	var out []*cri.Mount
	for _, m := range in {
		deep, err := m.RecursiveReadOnly(recursive)
		if err != nil {
			return nil, err
		}

		c := &cri.Mount{
			ContainerPath:     m.ContainerPath,
			HostPath:          m.HostPath,
			Readonly:          m.ReadOnly,
			RecursiveReadOnly: deep,
		}

		switch m.Propagation {
		case v1.MountPropagationHostToContainer:
			c.Propagation = cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
		case v1.MountPropagationBidirectional:
			c.Propagation = cri.MountPropagation_PROPAGATION_BIDIRECTIONAL
		}

		if m.Image != nil {
			c.Image = &cri.ImageSpec{Image: m.ImageID, UserSpecifiedImage: m.Image.Reference}
			c.ImageSubPath = m.ImageSubPath
		}

		out = append(out, c)
	}

	return out, nil
}

// recursiveReadOnly reports whether the pod's runtime handler supports recursive read-only mounts. Who wants
// none need not know.
func (w *Worker) recursiveReadOnly(ctx context.Context, pod *v1.Pod, mounts []volume.Mount) (bool, error) {
	if !slices.ContainsFunc(mounts, func(m volume.Mount) bool { return m.Recursive != "" }) {
		return false, nil
	}

	handler := ""
	if class := pod.Spec.RuntimeClassName; class != nil && *class != "" {
		var err error
		if handler, err = w.api.Handler(ctx, *class); err != nil {
			return false, err
		}
	}

	for _, h := range w.Handlers() {
		if h.Name == handler && h.Features != nil {
			return h.Features.RecursiveReadOnlyMounts != nil && *h.Features.RecursiveReadOnlyMounts, nil
		}
	}

	return false, nil
}

func criDevices(in []volume.Device) []*cri.Device {
	var out []*cri.Device
	for _, d := range in {
		permissions := "mrw"
		if d.ReadOnly {
			permissions = "r"
		}

		out = append(
			out,
			&cri.Device{ContainerPath: d.ContainerPath, HostPath: d.HostPath, Permissions: permissions},
		)
	}

	return out
}

// sandboxAttempt is the attempt number of the sandbox with the ID.
func sandboxAttempt(in plan.Input, id string) uint32 {
	for _, s := range in.Observed.Sandboxes {
		if s.ID == id {
			return s.Attempt
		}
	}
	return 0
}

package runtime

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/termination"
)

// Observe returns what the runtime has of one pod: all its sandboxes and all instances of its containers. The
// slices in it are shared with later observations and must not be changed.
func (c *Client) Observe(ctx context.Context, uid string) (plan.Observed, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	sandboxes, containers, err := c.details.lists(ctx, uid)
	if err != nil {
		return plan.Observed{}, err
	}

	var out plan.Observed
	for _, s := range sandboxes {
		seen, err := c.details.sandboxOf(ctx, s)
		if err != nil {
			return plan.Observed{}, err
		}

		out.Sandboxes = append(out.Sandboxes, seen)
	}

	if len(out.Sandboxes) == 0 {
		// There is no container without a sandbox.
		return out, nil
	}

	for _, l := range containers {
		seen, err := c.details.containerOf(ctx, l)
		if errors.Is(err, ErrNotFound) {
			// It has been removed since it was listed.
			continue
		}

		if err != nil {
			return plan.Observed{}, err
		}

		out.Containers = append(out.Containers, seen)
	}

	return out, nil
}

// details completes what lists say with what only the status of each sandbox and container says, and
// remembers of that what cannot change.
type details struct {
	memory
	runtime cri.RuntimeServiceClient
}

// lists lists the sandboxes and the containers of one pod at the same time. What is made of one kind while
// the other is listed is of a step that goes on, and is seen when that ends.
func (d *details) lists(ctx context.Context, uid string) ([]*cri.PodSandbox, []*cri.Container, error) {
	label := map[string]string{LabelPodUID: uid}
	var sandboxes *cri.ListPodSandboxResponse
	var containers *cri.ListContainersResponse
	var both errgroup.Group

	both.Go(func() (err error) {
		sandboxes, err = d.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{
			Filter: &cri.PodSandboxFilter{LabelSelector: label},
		})
		return err
	})

	both.Go(func() (err error) {
		containers, err = d.runtime.ListContainers(ctx, &cri.ListContainersRequest{
			Filter: &cri.ContainerFilter{LabelSelector: label},
		})
		return err
	})

	if err := both.Wait(); err != nil {
		return nil, nil, plain(err)
	}

	return sandboxes.Items, containers.Containers, nil
}

// sandboxOf completes a listed sandbox with its addresses.
func (d *details) sandboxOf(ctx context.Context, s *cri.PodSandbox) (plan.Sandbox, error) {
	out := plan.Sandbox{
		ID:          s.Id,
		Attempt:     s.GetMetadata().GetAttempt(),
		Ready:       s.State == cri.PodSandboxState_SANDBOX_READY,
		Created:     time.Unix(0, s.CreatedAt),
		Annotations: s.Annotations,
	}
	if !out.Ready {
		return out, nil
	}

	var known bool
	if out.IPs, known = d.sandbox(s.Id); known {
		return out, nil
	}

	r, err := d.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: s.Id})
	if err = plain(err); errors.Is(err, ErrNotFound) {
		out.Ready = false
		return out, nil
	}

	if err != nil {
		return out, err
	}

	out.IPs = addresses(r.GetStatus().GetNetwork())
	d.keepSandbox(s.Id, out.IPs)
	return out, nil
}

// addresses returns those of a sandbox, the primary one first.
func addresses(n *cri.PodSandboxNetworkStatus) []string {
	var out []string
	if ip := n.GetIp(); ip != "" {
		out = append(out, ip)
	}
	for _, more := range n.GetAdditionalIps() {
		out = append(out, more.Ip)
	}
	return out
}

// containerOf completes a listed container with its status, and with its termination message once it has
// ended.
func (d *details) containerOf(ctx context.Context, l *cri.Container) (plan.Container, error) {
	known, ok, present := d.container(l.Id, stateOf(l.State))
	if ok {
		return known, nil
	}

	r, err := d.runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: l.Id})
	if err != nil {
		return plan.Container{}, plain(err)
	}

	out := container(l, r.Status)
	if out.State == plan.Exited {
		out.Message = terminationMessage(r.Status)
	}

	if out.State == plan.Exited || out.State == plan.Running {
		d.keepContainer(out, present)
	}

	return out, nil
}

// container translates a container: l is what the list says of it, s its status.
func container(l *cri.Container, s *cri.ContainerStatus) plan.Container {
	out := plan.Container{
		ID:        s.Id,
		Name:      l.Labels[LabelContainerName],
		SandboxID: l.PodSandboxId,
		Attempt:   l.GetMetadata().GetAttempt(),
		Hash:      s.Annotations[AnnotationHash],
		State:     stateOf(s.State),
		Created:   stamp(s.CreatedAt),
		Started:   stamp(s.StartedAt),
		Finished:  stamp(s.FinishedAt),
		ExitCode:  s.ExitCode,
		Reason:    s.Reason,
		Message:   s.Message,
		Image:     s.GetImage().GetUserSpecifiedImage(),
		ImageID:   s.ImageRef,
		PreStop:   s.Annotations[AnnotationPreStop],
		Ports:     s.Annotations[AnnotationPorts],
		Resources: resources(s.GetResources().GetLinux()),
	}
	if out.ImageID == "" {
		out.ImageID = s.ImageId
	}
	if out.Image == "" {
		out.Image = s.GetImage().GetImage()
	}

	out.Grace, _ = strconv.ParseInt(s.Annotations[AnnotationTermGrace], 10, 64)
	if u := s.GetUser().GetLinux(); u != nil {
		out.HasUser, out.UID = true, u.Uid
		out.GID, out.Groups = u.Gid, u.SupplementalGroups
	}

	if a, ok := podspec.ParseAmounts(s.Annotations[AnnotationResources]); ok {
		out.CreatedWith = &a
	}

	for _, m := range s.Mounts {
		if m.RecursiveReadOnly {
			out.RecursiveReadOnly = append(out.RecursiveReadOnly, m.ContainerPath)
		}
	}

	return out
}

func resources(r *cri.LinuxContainerResources) *plan.Resources {
	if r == nil {
		return nil
	}
	return &plan.Resources{
		CPUShares: r.CpuShares,
		CPUQuota:  r.CpuQuota,
		CPUPeriod: r.CpuPeriod,
		Memory:    r.MemoryLimitInBytes,
	}
}

// terminationMessage returns the message of a container that has ended. One that was not made by a node agent
// has no annotations, and only what the runtime says of it.
func terminationMessage(s *cri.ContainerStatus) string {
	path := s.Annotations[AnnotationMessagePath]
	if path == "" {
		return s.Message
	}

	ended := termination.Ended{Message: s.Message, Log: s.LogPath}
	mounted := func(m *cri.Mount) bool { return m.ContainerPath == path }
	if i := slices.IndexFunc(s.Mounts, mounted); i >= 0 {
		ended.File = s.Mounts[i].HostPath
	}

	policy := v1.TerminationMessagePolicy(s.Annotations[AnnotationMessagePolicy])
	ended.FallBackToLog = policy == v1.TerminationMessageFallbackToLogsOnError && s.ExitCode != 0
	return ended.Text()
}

// stamp is the time of a CRI timestamp; 0 means that it has not come.
func stamp(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}

func stateOf(s cri.ContainerState) plan.State {
	switch s {
	case cri.ContainerState_CONTAINER_CREATED:
		return plan.Created
	case cri.ContainerState_CONTAINER_RUNNING:
		return plan.Running
	case cri.ContainerState_CONTAINER_EXITED:
		return plan.Exited
	}
	return plan.Unknown
}

package runtime

import (
	"cmp"
	"context"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/plan"
)

// Pod names a pod that the runtime has a sandbox or container of. Its UID is empty for one that was not made
// for Kubernetes.
type Pod struct {
	UID, Namespace, Name string
}

func podOf(labels map[string]string) Pod {
	return Pod{
		UID:       labels[LabelPodUID],
		Namespace: labels[LabelPodNamespace],
		Name:      labels[LabelPodName],
	}
}

// Sandbox is a sandbox as a list of the runtime has it.
type Sandbox struct {
	ID      string
	Pod     Pod
	Attempt uint32
	Ready   bool
	Created time.Time
}

// Container is a container as a list of the runtime has it.
type Container struct {
	ID        string
	SandboxID string
	Pod       Pod
	Name      string
	Image     string // as the runtime names it
	Attempt   uint32
	State     plan.State
	Created   time.Time

	// ImageID is the ID of its image or, where the runtime does not say, another reference of it.
	ImageID string
}

// Selection says which containers or sandboxes are listed. Its zero value selects all.
type Selection struct {
	UID       string // of the pod
	Container string // name; of no meaning for sandboxes
	Running   bool   // only containers that run, or sandboxes that are ready
}

func (s Selection) labels() map[string]string {
	out := map[string]string{}
	if s.UID != "" {
		out[LabelPodUID] = s.UID
	}
	if s.Container != "" {
		out[LabelContainerName] = s.Container
	}
	return out
}

// Sandboxes lists sandboxes, in no order.
func (c *Client) Sandboxes(ctx context.Context, which Selection) ([]Sandbox, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	filter := &cri.PodSandboxFilter{LabelSelector: which.labels()}
	if which.Running {
		filter.State = &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}
	}

	r, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{Filter: filter})
	if err != nil {
		return nil, plain(err)
	}

	out := make([]Sandbox, 0, len(r.Items))
	for _, s := range r.Items {
		out = append(out, Sandbox{
			ID:      s.Id,
			Pod:     podOf(s.Labels),
			Attempt: s.GetMetadata().GetAttempt(),
			Ready:   s.State == cri.PodSandboxState_SANDBOX_READY,
			Created: stamp(s.CreatedAt),
		})
	}

	return out, nil
}

// Containers lists containers, in no order.
func (c *Client) Containers(ctx context.Context, which Selection) ([]Container, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	filter := &cri.ContainerFilter{LabelSelector: which.labels()}
	if which.Running {
		filter.State = &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}
	}

	r, err := c.runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: filter})
	if err != nil {
		return nil, plain(err)
	}

	out := make([]Container, 0, len(r.Containers))
	for _, l := range r.Containers {
		out = append(out, Container{
			ID:        l.Id,
			SandboxID: l.PodSandboxId,
			Pod:       podOf(l.Labels),
			Name:      l.Labels[LabelContainerName],
			Image:     imageName(l.Image, l.ImageRef),
			Attempt:   l.GetMetadata().GetAttempt(),
			State:     stateOf(l.State),
			Created:   stamp(l.CreatedAt),
			ImageID:   cmp.Or(l.ImageId, l.ImageRef, l.GetImage().GetImage()),
		})
	}

	return out, nil
}

// imageName returns the name of an image that says most to a reader: the one that was asked for.
func imageName(spec *cri.ImageSpec, ref string) string {
	return cmp.Or(spec.GetUserSpecifiedImage(), spec.GetImage(), ref)
}

// NewestContainer returns the newest of the instances of one container, nil if there is none.
func NewestContainer(all []Container) *Container {
	var newest *Container
	for i, c := range all {
		if newest == nil || newer(c.age(), newest.age()) {
			newest = &all[i]
		}
	}
	return newest
}

// NewestSandbox returns the newest of the sandboxes of one pod, nil if there is none.
func NewestSandbox(all []Sandbox) *Sandbox {
	var newest *Sandbox
	for i, s := range all {
		if newest == nil || newer(s.age(), newest.age()) {
			newest = &all[i]
		}
	}
	return newest
}

// age orders instances of one container, or sandboxes of one pod, as plan does: by attempt, and by time and
// ID where a runtime has two of one attempt.
type age struct {
	attempt uint32
	created time.Time
	id      string
}

func (c *Container) age() age { return age{c.Attempt, c.Created, c.ID} }

func (s *Sandbox) age() age { return age{s.Attempt, s.Created, s.ID} }

func newer(a, b age) bool {
	return cmp.Or(
		cmp.Compare(a.attempt, b.attempt),
		a.created.Compare(b.created),
		cmp.Compare(a.id, b.id),
	) > 0
}

// Status is what ContainerStatus returns of one container.
type Status struct {
	State   plan.State
	LogPath string // absolute; empty if the container has no log

	// Images are the references of the images that are mounted in the container.
	Images []string
}

// ContainerStatus asks for the state of one container and where its log is. ErrNotFound when it is gone.
func (c *Client) ContainerStatus(ctx context.Context, id string) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	r, err := c.runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return Status{}, plain(err)
	}

	s := r.GetStatus()
	out := Status{State: stateOf(s.GetState()), LogPath: s.GetLogPath()}
	for _, m := range s.GetMounts() {
		if image := cmp.Or(m.GetImage().GetImageRef(), m.GetImage().GetImage()); image != "" {
			out.Images = append(out.Images, image)
		}
	}

	return out, nil
}

// Annotations are those of pods, by UID.
type Annotations map[string]map[string]string

// Namesakes returns the pods of a full name that the runtime has a sandbox of, by UID, each with the
// annotations that it was made with.
func (c *Client) Namesakes(ctx context.Context, namespace, name string) (Annotations, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	label := map[string]string{LabelPodNamespace: namespace, LabelPodName: name}
	r, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{
		Filter: &cri.PodSandboxFilter{LabelSelector: label},
	})
	if err != nil {
		return nil, plain(err)
	}

	out := Annotations{}
	for _, s := range r.Items {
		if p := podOf(s.Labels); p.UID != "" {
			out[p.UID] = s.Annotations
		}
	}

	return out, nil
}

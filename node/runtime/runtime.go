// Package runtime is the agent's client of the container runtime: all calls of CRI v1 (k8s.io/cri-api) are
// made here, and what they return are plain types. Observe returns what the runtime has of one pod as plan
// sees it, by the labels and annotations that kubelet uses too; Watch reports which pods have changed.
//
// The client remembers of each container and sandbox what cannot change while its state does not, so that a
// look at a pod costs two lists, and no status of what is known already.
package runtime

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/plan"
)

// Labels and annotations of sandboxes and containers. They are kubelet's, so that a node can be handed over
// from one to the other.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"

	AnnotationHash          = "io.kubernetes.container.hash"
	AnnotationRestartCount  = "io.kubernetes.container.restartCount"
	AnnotationMessagePath   = "io.kubernetes.container.terminationMessagePath"
	AnnotationMessagePolicy = "io.kubernetes.container.terminationMessagePolicy"
	AnnotationPreStop       = "io.kubernetes.container.preStopHandler"
	AnnotationPorts         = "io.kubernetes.container.ports"
	AnnotationDeletionGrace = "io.kubernetes.pod.deletionGracePeriod"
	AnnotationTermGrace     = "io.kubernetes.pod.terminationGracePeriod"

	// AnnotationResources is not kubelet's: the resources that a container was created with.
	AnnotationResources = "io.trivet-node.container.resources"
)

// How long calls may take. The runtime may wait for the network plugin while it makes a sandbox.
const (
	callTimeout    = 2 * time.Minute
	sandboxTimeout = 4 * time.Minute
	infoTimeout    = 10 * time.Second
)

// The configurations of sandboxes and containers are made by criconfig and taken by RunSandbox,
// CreateContainer and Pull, resources by UpdateContainer and UpdateSandbox. Those who only pass them on know
// them by these names.
type (
	SandboxConfig   = cri.PodSandboxConfig
	ContainerConfig = cri.ContainerConfig
	Resources       = cri.LinuxContainerResources
)

// Client speaks to one CRI runtime, and through Images to its image service. All methods may be called at the
// same time.
type Client struct {
	Images
	Resizes
	runtime cri.RuntimeServiceClient
	log     *slog.Logger
	details *details

	// Relisted is told about each list of everything that Watch makes: when it began and how long it took. It
	// is set before Watch runs, and may be nil.
	Relisted func(began time.Time, took time.Duration)
}

// New returns a client on open connections to the runtime service and the image service, which may be one.
func New(runtime, images grpc.ClientConnInterface, log *slog.Logger) *Client {
	service := cri.NewRuntimeServiceClient(runtime)
	known := &details{
		runtime: service,
		memory: memory{
			containers: map[string]plan.Container{},
			addresses:  map[string][]string{},
		},
	}

	return &Client{
		Images:  Images{service: cri.NewImageServiceClient(images)},
		Resizes: Resizes{runtime: service, details: known},
		runtime: service,
		log:     log,
		details: known,
	}
}

// RunSandbox creates and starts a sandbox with the named runtime handler, or the default one if handler is
// empty, and returns its ID.
func (c *Client) RunSandbox(ctx context.Context, config *SandboxConfig, handler string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, sandboxTimeout)
	defer cancel()

	r, err := c.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		return "", plain(err)
	}
	return r.PodSandboxId, nil
}

// StopSandbox stops a sandbox and all containers in it. A sandbox that is gone is a success.
func (c *Client) StopSandbox(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	_, err := c.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id})
	c.details.forgetSandbox(id)
	return unlessGone(err)
}

// RemoveSandbox removes a sandbox with its containers. A sandbox that is gone is a success.
func (c *Client) RemoveSandbox(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	_, err := c.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
	c.details.forgetSandbox(id)
	return unlessGone(err)
}

// CreateContainer creates a container in a sandbox, whose configuration must be the one that the sandbox was
// run with, and returns its ID.
func (c *Client) CreateContainer(
	ctx context.Context, sandbox string, config *ContainerConfig, sandboxConfig *SandboxConfig,
) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	r, err := c.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId:  sandbox,
		Config:        config,
		SandboxConfig: sandboxConfig,
	})
	if err != nil {
		return "", plain(err)
	}

	return r.ContainerId, nil
}

// StartContainer starts a created container.
func (c *Client) StartContainer(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	_, err := c.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: id})
	return plain(err)
}

// StopContainer sends the stop signal and, after grace, SIGKILL, and returns when the container has ended.
// One that is gone is a success.
func (c *Client) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace+callTimeout)
	defer cancel()

	_, err := c.runtime.StopContainer(
		ctx,
		&cri.StopContainerRequest{ContainerId: id, Timeout: seconds(grace)},
	)
	return unlessGone(err)
}

// RemoveContainer removes a container. One that is gone is a success.
func (c *Client) RemoveContainer(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	_, err := c.runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: id})
	c.details.forgetContainer(id)
	return unlessGone(err)
}

// seconds rounds up: CRI counts in whole seconds, and nothing may get less time than it was promised.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// Resizes changes what containers and pods may use.
type Resizes struct {
	runtime cri.RuntimeServiceClient
	details *details
}

// UpdateContainer gives a container that has not ended other resources. Those that are 0 stay as they are,
// -1 takes the quota or the limit of memory away. It may be repeated; after an error it may have been done in
// part.
func (r Resizes) UpdateContainer(ctx context.Context, id string, to *Resources) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	_, err := r.runtime.UpdateContainerResources(
		ctx,
		&cri.UpdateContainerResourcesRequest{ContainerId: id, Linux: to},
	)
	r.details.forgetContainer(id)
	return plain(err)
}

// UpdateSandbox tells the runtime what a pod costs beside its containers, which may be nil, and what these
// may have together, before the pod's control group is changed. A runtime that does not want to know is a
// success.
func (r Resizes) UpdateSandbox(ctx context.Context, id string, overhead, resources *Resources) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	_, err := r.runtime.UpdatePodSandboxResources(ctx, &cri.UpdatePodSandboxResourcesRequest{
		PodSandboxId: id,
		Overhead:     overhead,
		Resources:    resources,
	})
	if notImplemented(err) {
		return nil
	}

	return plain(err)
}

// ContainerMemory returns how many bytes of memory a container uses, page cache included.
func (r Resizes) ContainerMemory(ctx context.Context, id string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	answer, err := r.runtime.ContainerStats(ctx, &cri.ContainerStatsRequest{ContainerId: id})
	if err != nil {
		return 0, plain(err)
	}
	if used := answer.GetStats().GetMemory().GetUsageBytes(); used != nil {
		return int64(used.Value), nil
	}

	return 0, fmt.Errorf("the runtime does not know the memory usage of container %s", id)
}

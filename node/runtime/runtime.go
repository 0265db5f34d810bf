// Package runtime is the agent's side of CRI v1 (k8s.io/cri-api): it turns what the runtime lists into
// plan.Observed, by the labels and annotations that kubelet uses too, and offers the few calls the agent
// makes. It keeps what cannot change (a container that ended, the addresses of a sandbox) and asks again for
// the rest.
package runtime

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels and annotations of sandboxes and containers, kubelet's names: a node can be handed from one to the
// other.
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
	callTimeout             = 2 * time.Minute
	sandboxTimeout          = 4 * time.Minute
)

// Client speaks to one CRI runtime. All methods may be called at the same time.
type Client struct {
	Runtime cri.RuntimeServiceClient
	Images  cri.ImageServiceClient
	log     *slog.Logger

	mu    sync.Mutex                       // guards ended and ready
	ended map[string]*cri.ContainerStatus  // of containers that exited: it never changes
	ready map[string]*cri.PodSandboxStatus // of ready sandboxes: addresses never change
}

// New returns a client on open connections; images may be the same one.
func New(runtime, images grpc.ClientConnInterface, log *slog.Logger) *Client {
	return &Client{
		Runtime: cri.NewRuntimeServiceClient(runtime),
		Images:  cri.NewImageServiceClient(images),
		log:     log,
		ended:   map[string]*cri.ContainerStatus{},
		ready:   map[string]*cri.PodSandboxStatus{},
	}
}

// RunSandbox makes and starts a sandbox and returns its ID.
func (c *Client) RunSandbox(
	ctx context.Context,
	config *cri.PodSandboxConfig,
	handler string,
) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, sandboxTimeout)
	defer cancel()
	r, err := c.Runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		return "", plain(err)
	}
	return r.PodSandboxId, nil
}

// StopSandbox stops a sandbox and whatever runs in it. A sandbox that is gone is a success.
func (c *Client) StopSandbox(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.Runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id})
	c.forgetSandbox(id)
	return found(err)
}

// RemoveSandbox removes a sandbox with its containers. A sandbox that is gone is a success.
func (c *Client) RemoveSandbox(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.Runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
	c.forgetSandbox(id)
	return found(err)
}

// CreateContainer makes a container in a sandbox and returns its ID.
func (c *Client) CreateContainer(
	ctx context.Context,
	sandbox string,
	config *cri.ContainerConfig,
	pod *cri.PodSandboxConfig,
) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := c.Runtime.CreateContainer(
		ctx,
		&cri.CreateContainerRequest{PodSandboxId: sandbox, Config: config, SandboxConfig: pod},
	)
	if err != nil {
		return "", plain(err)
	}
	return r.ContainerId, nil
}

// StartContainer starts a created container.
func (c *Client) StartContainer(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.Runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: id})
	return plain(err)
}

// StopContainer sends the stop signal and, after grace, SIGKILL; it returns when the container ended. One
// that is gone is a success.
func (c *Client) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace+callTimeout)
	defer cancel()
	seconds := int64((grace + time.Second - 1) / time.Second)
	_, err := c.Runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id, Timeout: seconds})
	return found(err)
}

// RemoveContainer removes a container. One that is gone is a success.
func (c *Client) RemoveContainer(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.Runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: id})
	c.mu.Lock()
	delete(c.ended, id)
	c.mu.Unlock()
	return found(err)
}

// ExecSync runs a command in a container. A command that ran and failed is no error: its code tells.
func (c *Client) ExecSync(
	ctx context.Context,
	id string,
	command []string,
	timeout time.Duration,
) (output []byte, code int32, err error) {
	seconds := int64((timeout + time.Second - 1) / time.Second)
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout+5*time.Second)
		defer cancel()
	}
	r, err := c.Runtime.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: seconds})
	if err != nil {
		return nil, 0, plainTimeout(err)
	}
	return append(r.Stdout, r.Stderr...), r.ExitCode, nil
}

// ErrTimeout is wrapped by errors of calls that took longer than they may.
var ErrTimeout = fmt.Errorf("timed out")

func plainTimeout(err error) error {
	if status.Code(err) == codes.DeadlineExceeded {
		return fmt.Errorf("%w: %s", ErrTimeout, status.Convert(err).Message())
	}
	return plain(err)
}

// found makes a success of "not found".
func found(err error) error {
	if status.Code(err) == codes.NotFound {
		return nil
	}
	return plain(err)
}

// plain drops gRPC's wording: users read these texts in events.
func plain(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok {
		return &callError{code: s.Code(), message: s.Message()}
	}
	return err
}

type callError struct {
	code    codes.Code
	message string
}

func (e *callError) Error() string { return e.message }

// GRPCStatus keeps the code for status.Code.
func (e *callError) GRPCStatus() *status.Status { return status.New(e.code, e.message) }

func (c *Client) forgetSandbox(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ready, id)
}

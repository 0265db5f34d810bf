package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/socket"
)

// CRI is a Runtime that is asked over its socket.
type CRI struct {
	client runtimeapi.RuntimeServiceClient
	close  func() error
}

// DialCRI returns the Runtime behind a socket. The caller closes it.
func DialCRI(path string) (*CRI, error) {
	conn, err := socket.Dial(path)
	if err != nil {
		return nil, err
	}
	return &CRI{client: runtimeapi.NewRuntimeServiceClient(conn), close: conn.Close}, nil
}

// startTimeout bounds the start of a CRI server.
const startTimeout = 30 * time.Second

// AwaitCRI connects to the CRI server of a machine, by the path of its socket there, and waits until ready
// returns nil: containerd answers "not initialized yet" at first.
func AwaitCRI(
	ctx context.Context,
	m *machine.Machine,
	path string,
	ready func(ctx context.Context, conn *grpc.ClientConn) error,
	options ...grpc.DialOption,
) (*grpc.ClientConn, error) {
	options = append(options, grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	conn, err := socket.Dial(fmt.Sprintf("/proc/%d/root%s", m.Pid(), path), options...)
	if err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	backoff := retry.Backoff{First: 20 * time.Millisecond, Max: 20 * time.Millisecond}
	err = retry.Until(ctx, backoff, func(ctx context.Context) error { return ready(ctx, conn) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the server at %s does not answer: %w", path, err), conn.Close())
	}
	return conn, nil
}

// ListsImages is a ready of AwaitCRI, for those that work with images alone.
func ListsImages(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := runtimeapi.NewImageServiceClient(conn).ListImages(ctx, &runtimeapi.ListImagesRequest{})
	return err
}

// Close closes the connection.
func (c *CRI) Close() error { return c.close() }

// Dates returns those of the only sandbox of a pod and of the only container in it.
func (c *CRI) Dates(ctx context.Context, namespace, pod string) (Dated, error) {
	sandbox, err := c.sandbox(ctx, namespace, pod)
	if err != nil {
		return Dated{}, err
	}

	list, err := c.client.ListContainers(ctx, &runtimeapi.ListContainersRequest{
		Filter: &runtimeapi.ContainerFilter{PodSandboxId: sandbox.Id},
	})
	if err != nil {
		return Dated{}, err
	}
	if n := len(list.Containers); n != 1 {
		return Dated{}, fmt.Errorf("%d containers, want one", n)
	}

	container, err := c.client.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{
		ContainerId: list.Containers[0].Id,
	})
	if err != nil {
		return Dated{}, err
	}

	return Dated{
		Sandbox:   time.Unix(0, sandbox.CreatedAt),
		Container: time.Unix(0, container.Status.CreatedAt),
		Started:   time.Unix(0, container.Status.StartedAt),
	}, nil
}

// sandbox returns the status of the only sandbox of a pod, which kubelet and trivet-node label alike.
func (c *CRI) sandbox(ctx context.Context, namespace, pod string) (*runtimeapi.PodSandboxStatus, error) {
	list, err := c.client.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{
		Filter: &runtimeapi.PodSandboxFilter{
			LabelSelector: map[string]string{
				"io.kubernetes.pod.namespace": namespace,
				"io.kubernetes.pod.name":      pod,
			},
		},
	})
	if err != nil {
		return nil, err
	}
	if n := len(list.Items); n != 1 {
		return nil, fmt.Errorf("%d sandboxes, want one", n)
	}

	resp, err := c.client.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{
		PodSandboxId: list.Items[0].Id,
	})
	return resp.GetStatus(), err
}

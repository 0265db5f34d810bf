// Package pods looks at a container runtime by CRI, and takes its pods away.
package pods

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/socket"
)

// Runtime is a container runtime at its socket.
type Runtime struct {
	// Endpoint is as kubelet has it: unix:///run/containerd/containerd.sock, also without the scheme.
	Endpoint string
}

// Socket is its path.
func (r Runtime) Socket() string { return strings.TrimPrefix(r.Endpoint, "unix://") }

func (r Runtime) dial() (*grpc.ClientConn, error) {
	conn, err := socket.Dial(r.Socket())
	if err != nil {
		return nil, fmt.Errorf("runtime at %s: %w", r.Endpoint, err)
	}
	return conn, nil
}

// look is how long one answer may take.
const look = 5 * time.Second

// Serve waits until it serves CRI.
func (r Runtime) Serve(ctx context.Context) error {
	conn, err := r.dial()
	if err != nil {
		return err
	}
	defer conn.Close()

	pauses := retry.Backoff{First: 50 * time.Millisecond, Max: 200 * time.Millisecond}
	return retry.Until(ctx, pauses, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, look)
		defer cancel()

		client := cri.NewRuntimeServiceClient(conn)
		status, err := client.Status(ctx, &cri.StatusRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return fmt.Errorf("runtime at %s: %w", r.Endpoint, err)
		}
		for _, c := range status.GetStatus().GetConditions() {
			if c.Type == "RuntimeReady" && !c.Status {
				return fmt.Errorf("runtime at %s is not ready: %s %s", r.Endpoint, c.Reason, c.Message)
			}
		}
		return nil
	})
}

// Process is the one that listens at its socket.
func (r Runtime) Process(ctx context.Context) (pid int, err error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", r.Socket())
	if err != nil {
		return 0, err
	}
	defer conn.Close()

	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}

	var credentials *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		credentials, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, err
	}
	return int(credentials.Pid), nil
}

// Running are the containers that run.
func (r Runtime) Running(ctx context.Context) (ids []string, err error) {
	conn, err := r.dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()

	list, err := cri.NewRuntimeServiceClient(conn).ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("containers at %s: %w", r.Endpoint, err)
	}
	for _, c := range list.Containers {
		if c.State == cri.ContainerState_CONTAINER_RUNNING {
			ids = append(ids, c.Id)
		}
	}
	return ids, nil
}

// RemoveAll ends all containers, each of which may take the grace, and removes all pods.
func (r Runtime) RemoveAll(ctx context.Context, grace time.Duration) error {
	conn, err := r.dial()
	if err != nil {
		return err
	}
	defer conn.Close()

	client := cri.NewRuntimeServiceClient(conn)
	list, err := client.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("pods at %s: %w", r.Endpoint, err)
	}

	containers, err := client.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return fmt.Errorf("containers at %s: %w", r.Endpoint, err)
	}

	of := map[string][]string{}
	for _, c := range containers.Containers {
		if c.State == cri.ContainerState_CONTAINER_RUNNING {
			of[c.PodSandboxId] = append(of[c.PodSandboxId], c.Id)
		}
	}

	var group errgroup.Group
	group.SetLimit(parallel)
	for _, pod := range list.Items {
		group.Go(func() error {
			if err := remove(ctx, client, pod.Id, of[pod.Id], grace); err != nil {
				m := pod.GetMetadata()
				return fmt.Errorf("pod %s/%s: %w", m.GetNamespace(), m.GetName(), err)
			}
			return nil
		})
	}
	return group.Wait()
}

// parallel is how many pods go at a time: more than nodes have in most cases, for each may take the whole
// grace.
const parallel = 128

// remove takes a pod away. A container that did not stop is no failure if its sandbox does.
func remove(
	ctx context.Context,
	client cri.RuntimeServiceClient,
	pod string,
	containers []string,
	grace time.Duration,
) error {
	var group errgroup.Group
	for _, id := range containers {
		group.Go(func() error {
			_, err := client.StopContainer(ctx, &cri.StopContainerRequest{
				ContainerId: id,
				Timeout:     int64(grace.Seconds()),
			})
			return err
		})
	}
	stopped := group.Wait()

	if _, err := client.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod}); err != nil {
		return errors.Join(stopped, err)
	}
	_, err := client.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod})
	return err
}

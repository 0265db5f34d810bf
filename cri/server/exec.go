package server

import (
	"context"
	"fmt"
	"math"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/cri/streaming"
)

// Streams runs commands and gives out the URLs of streams.
type Streams interface {
	ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (streaming.Result, error)
	Exec(r *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error)
	Attach(r *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error)
	PortForward(r *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error)
}

// execCalls run commands in containers and connect clients with them.
type execCalls struct {
	sandboxes  *sandbox.Service
	containers *container.Service
	streams    Streams
}

// ExecSync runs a command and returns its output and exit code.
func (s *execCalls) ExecSync(
	ctx context.Context, r *runtimeapi.ExecSyncRequest,
) (*runtimeapi.ExecSyncResponse, error) {
	c, err := s.containers.Get(r.ContainerId)
	if err != nil {
		return nil, err
	}
	if err := checkCommand(c.ID, r.Cmd); err != nil {
		return nil, err
	}

	result, err := s.streams.ExecSync(ctx, c.ID, r.Cmd, seconds(r.Timeout))
	if err != nil {
		return nil, err
	}

	return &runtimeapi.ExecSyncResponse{
		Stdout:   result.Stdout,
		Stderr:   result.Stderr,
		ExitCode: int32(result.Exit.Code),
	}, nil
}

// Exec returns the URL of a stream that runs a command.
func (s *execCalls) Exec(_ context.Context, r *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	c, err := s.containers.Running(r.ContainerId)
	if err != nil {
		return nil, err
	}
	if err := checkCommand(c.ID, r.Cmd); err != nil {
		return nil, err
	}
	r.ContainerId = c.ID
	return s.streams.Exec(r)
}

func checkCommand(id string, cmd []string) error {
	if err := spec.CheckArgs(cmd); err != nil {
		return fmt.Errorf("%w: exec in container %s: %w", errInvalid, id, err)
	}
	return nil
}

// Attach returns the URL of a stream to and from a container's process.
func (s *execCalls) Attach(
	_ context.Context, r *runtimeapi.AttachRequest,
) (*runtimeapi.AttachResponse, error) {
	c, err := s.containers.Running(r.ContainerId)
	if err != nil {
		return nil, err
	}
	r.ContainerId = c.ID
	return s.streams.Attach(r)
}

// PortForward returns the URL of streams to ports of a pod.
func (s *execCalls) PortForward(
	_ context.Context, r *runtimeapi.PortForwardRequest,
) (*runtimeapi.PortForwardResponse, error) {
	pod, err := s.sandboxes.Get(r.PodSandboxId)
	if err != nil {
		return nil, err
	}
	if pod.State != life.Ready {
		return nil, fmt.Errorf("port-forward to %s: %w", pod.ID, sandbox.ErrNotReady)
	}
	r.PodSandboxId = pod.ID
	return s.streams.PortForward(r)
}

// seconds returns a timeout of CRI, which may be any number: the longest Duration of whole seconds if none
// can hold it, 0 if it is negative.
func seconds(n int64) time.Duration {
	const longest = int64(math.MaxInt64 / time.Second)
	return time.Duration(min(max(n, 0), longest)) * time.Second
}

// Package server speaks CRI v1's RuntimeService for cri/sandbox and cri/container: translation, gRPC codes,
// and the order in which a pod's containers and its sandbox end.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/network"
	"github.com/trivet-node/trivet/cri/rootfs"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/cri/streaming"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// Config is what the server translates for.
type Config struct {
	Version    string
	Sandboxes  *sandbox.Sandboxes
	Containers *container.Containers
	Images     *image.Store
	Rootfs     *rootfs.Manager
	Network    *network.Network
	Streaming  *streaming.Server
	Events     *Events
	Cgroups    *cgroup.Host
	Driver     cgroupdriver.Driver
	Handlers   []string
	Info       any // configuration, shown by verbose status
	Log        *slog.Logger
}

// Server implements runtimeapi.RuntimeServiceServer.
type Server struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	cfg     Config
	written *written
}

// New makes a Server.
func New(cfg Config) *Server { return &Server{cfg: cfg, written: newWritten(cfg.Rootfs.Usage)} }

// Version tells the runtime's name and version.
func (s *Server) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{
		Version:           "0.1.0",
		RuntimeName:       "trivet-cri",
		RuntimeVersion:    s.cfg.Version,
		RuntimeApiVersion: "v1",
	}, nil
}

// Status reports whether pods can be run.
func (s *Server) Status(
	ctx context.Context,
	r *runtimeapi.StatusRequest,
) (*runtimeapi.StatusResponse, error) {
	net := &runtimeapi.RuntimeCondition{Type: runtimeapi.NetworkReady, Status: true}
	if err := s.cfg.Network.Ready(ctx); err != nil {
		net.Status, net.Reason, net.Message = false, "NetworkPluginNotReady", err.Error()
	}

	resp := &runtimeapi.StatusResponse{Features: &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true},
		Status: &runtimeapi.RuntimeStatus{
			Conditions: []*runtimeapi.RuntimeCondition{{Type: runtimeapi.RuntimeReady, Status: true}, net},
		}}

	// Recursive read-only mounts need mount_setattr (kernel >= 5.12), crun >= 1.4 or runc >= 1.1: all older
	// than what else is needed here.
	for _, name := range s.cfg.Handlers {
		resp.RuntimeHandlers = append(
			resp.RuntimeHandlers,
			&runtimeapi.RuntimeHandler{
				Name:     name,
				Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true},
			},
		)
	}

	if r.Verbose {
		resp.Info = info("config", s.cfg.Info)
	}

	return resp, nil
}

// RuntimeConfig tells kubelet the cgroup driver.
func (s *Server) RuntimeConfig(
	context.Context,
	*runtimeapi.RuntimeConfigRequest,
) (*runtimeapi.RuntimeConfigResponse, error) {
	driver := runtimeapi.CgroupDriver_CGROUPFS
	if s.cfg.Driver.Systemd {
		driver = runtimeapi.CgroupDriver_SYSTEMD
	}
	return &runtimeapi.RuntimeConfigResponse{
		Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: driver},
	}, nil
}

// UpdateRuntimeConfig takes the node's pod CIDR and needs it for nothing: conflists carry their own ranges.
func (s *Server) UpdateRuntimeConfig(
	context.Context,
	*runtimeapi.UpdateRuntimeConfigRequest,
) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}

// ExecSync runs a command and returns its output.
func (s *Server) ExecSync(
	ctx context.Context,
	r *runtimeapi.ExecSyncRequest,
) (*runtimeapi.ExecSyncResponse, error) {
	c, err := s.cfg.Containers.Get(r.ContainerId)
	if err != nil {
		return nil, coded(err)
	}
	if err := spec.CheckArgs(r.Cmd); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "exec in container %s: %v", c.ID, err)
	}

	res, err := s.cfg.Streaming.ExecSync(ctx, c.ID, r.Cmd, seconds(r.Timeout))
	if err != nil {
		return nil, coded(err)
	}

	return &runtimeapi.ExecSyncResponse{
		Stdout:   res.Stdout,
		Stderr:   res.Stderr,
		ExitCode: int32(res.Exit.Code),
	}, nil
}

// Exec gives the URL of an exec.
func (s *Server) Exec(_ context.Context, r *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	c, err := s.running(r.ContainerId)
	if err != nil {
		return nil, coded(err)
	}
	if err := spec.CheckArgs(r.Cmd); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "exec in container %s: %v", c.ID, err)
	}
	r.ContainerId = c.ID
	resp, err := s.cfg.Streaming.Exec(r)
	return resp, coded(err)
}

// Attach gives the URL of an attach.
func (s *Server) Attach(_ context.Context, r *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	c, err := s.running(r.ContainerId)
	if err != nil {
		return nil, coded(err)
	}
	r.ContainerId = c.ID
	resp, err := s.cfg.Streaming.Attach(r)
	return resp, coded(err)
}

// PortForward gives the URL of a port-forward.
func (s *Server) PortForward(
	_ context.Context,
	r *runtimeapi.PortForwardRequest,
) (*runtimeapi.PortForwardResponse, error) {
	box, err := s.cfg.Sandboxes.Get(r.PodSandboxId)
	if err != nil {
		return nil, coded(err)
	}
	if box.State != sandbox.Ready {
		return nil, status.Errorf(codes.FailedPrecondition, "pod sandbox %s is not ready", box.ID)
	}
	r.PodSandboxId = box.ID
	resp, err := s.cfg.Streaming.PortForward(r)
	return resp, coded(err)
}

func (s *Server) running(id string) (container.Record, error) {
	c, err := s.cfg.Containers.Get(id)
	if err == nil && c.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		err = container.ErrNotRunning
	}
	return c, err
}

// seconds is a timeout of CRI, which is as long as its caller likes: one that no Duration can hold is the
// longest one.
func seconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), int64(math.MaxInt64/time.Second))) * time.Second
}

func info(key string, value any) map[string]string {
	data, err := json.Marshal(value)
	if err != nil {
		return nil
	}
	return map[string]string{key: string(data)}
}

// coded gives an error its gRPC code. Kubelet and crictl tell "not there" from a failure by it.
func coded(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}

	code := codes.Unknown
	switch {
	case errors.Is(err, sandbox.ErrNotFound), errors.Is(err, container.ErrNotFound),
		errors.Is(err, image.ErrNotFound):
		code = codes.NotFound
	case errors.Is(err, container.ErrNotRunning), errors.Is(err, container.ErrSandboxNotReady):
		code = codes.FailedPrecondition
	case errors.Is(err, streaming.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, streaming.ErrTooManyStreams):
		code = codes.ResourceExhausted
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}

	return status.Error(code, err.Error())
}

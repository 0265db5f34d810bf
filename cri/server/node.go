package server

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// nodeCalls are about the runtime as a whole.
type nodeCalls struct{ cfg Config }

// Version returns the runtime's name and version.
func (s *nodeCalls) Version(
	context.Context, *runtimeapi.VersionRequest,
) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{
		Version:           "0.1.0",
		RuntimeName:       "trivet-cri",
		RuntimeVersion:    s.cfg.Version,
		RuntimeApiVersion: "v1",
	}, nil
}

// Status returns the runtime's conditions, RuntimeReady and NetworkReady, and its features.
func (s *nodeCalls) Status(
	ctx context.Context, r *runtimeapi.StatusRequest,
) (*runtimeapi.StatusResponse, error) {
	network := &runtimeapi.RuntimeCondition{Type: runtimeapi.NetworkReady, Status: true}
	if err := s.cfg.Network.Ready(ctx); err != nil {
		network.Status = false
		network.Reason = "NetworkPluginNotReady"
		network.Message = err.Error()
	}

	resp := &runtimeapi.StatusResponse{
		Features: &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true},
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			{Type: runtimeapi.RuntimeReady, Status: true},
			network,
		}},
	}

	// Recursive read-only mounts need mount_setattr (kernel 5.12) and crun 1.4 or runc 1.1: all of them older
	// than what else is needed here.
	for _, name := range s.cfg.Handlers.Names() {
		resp.RuntimeHandlers = append(resp.RuntimeHandlers, &runtimeapi.RuntimeHandler{
			Name: name,
			Features: &runtimeapi.RuntimeHandlerFeatures{
				RecursiveReadOnlyMounts: true,
				UserNamespaces:          s.cfg.Handlers[name].NoUsers == nil,
			},
		})
	}

	if r.Verbose {
		resp.Info = info("config", s.cfg.Info)
	}

	return resp, nil
}

// RuntimeConfig returns the cgroup driver, which kubelet then uses, too.
func (s *nodeCalls) RuntimeConfig(
	context.Context, *runtimeapi.RuntimeConfigRequest,
) (*runtimeapi.RuntimeConfigResponse, error) {
	driver := runtimeapi.CgroupDriver_CGROUPFS
	if s.cfg.Driver.Systemd {
		driver = runtimeapi.CgroupDriver_SYSTEMD
	}
	linux := &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: driver}
	return &runtimeapi.RuntimeConfigResponse{Linux: linux}, nil
}

// UpdateRuntimeConfig ignores the node's pod CIDR: the CNI configuration has its own ranges.
func (s *nodeCalls) UpdateRuntimeConfig(
	context.Context, *runtimeapi.UpdateRuntimeConfigRequest,
) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}

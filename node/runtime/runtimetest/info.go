package runtimetest

import (
	"context"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Version is that of a runtime named "fake".
func (s service) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{RuntimeName: "fake", RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

// Status is that of a runtime that is ready, has one handler that can do all, and follows group policies.
func (s service) Status(context.Context, *cri.StatusRequest) (*cri.StatusResponse, error) {
	return &cri.StatusResponse{
		Status: &cri.RuntimeStatus{Conditions: []*cri.RuntimeCondition{
			{Type: cri.RuntimeReady, Status: true},
			{Type: cri.NetworkReady, Status: true},
		}},
		RuntimeHandlers: []*cri.RuntimeHandler{{
			Name:     "all",
			Features: &cri.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true, UserNamespaces: true},
		}},
		Features: &cri.RuntimeFeatures{SupplementalGroupsPolicy: true},
	}, nil
}

// RuntimeConfig is that of a runtime whose cgroups are systemd's.
func (service) RuntimeConfig(
	context.Context, *cri.RuntimeConfigRequest,
) (*cri.RuntimeConfigResponse, error) {
	return &cri.RuntimeConfigResponse{
		Linux: &cri.LinuxRuntimeConfiguration{CgroupDriver: cri.CgroupDriver_SYSTEMD},
	}, nil
}

// UpdateRuntimeConfig is recorded, with the pod ranges.
func (s service) UpdateRuntimeConfig(
	_ context.Context, r *cri.UpdateRuntimeConfigRequest,
) (*cri.UpdateRuntimeConfigResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ranges := r.GetRuntimeConfig().GetNetworkConfig().GetPodCidr()
	return &cri.UpdateRuntimeConfigResponse{}, s.note("UpdateRuntimeConfig", ranges)
}

// ImageFsInfo is that of images below /.
func (s imageService) ImageFsInfo(
	context.Context,
	*cri.ImageFsInfoRequest,
) (*cri.ImageFsInfoResponse, error) {
	return &cri.ImageFsInfoResponse{ImageFilesystems: []*cri.FilesystemUsage{{
		FsId:       &cri.FilesystemIdentifier{Mountpoint: "/"},
		UsedBytes:  &cri.UInt64Value{Value: 5 << 20},
		InodesUsed: &cri.UInt64Value{Value: 7},
	}}}, nil
}

// SetStats sets the figures of sandboxes.
func (s *Server) SetStats(stats ...*cri.PodSandboxStats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats = stats
}

// ListPodSandboxStats returns the figures that SetStats was given.
func (s service) ListPodSandboxStats(
	context.Context, *cri.ListPodSandboxStatsRequest,
) (*cri.ListPodSandboxStatsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &cri.ListPodSandboxStatsResponse{Stats: s.stats}, nil
}

package server

import (
	"cmp"
	"context"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
)

// CreateContainer makes a container.
func (s *Server) CreateContainer(
	ctx context.Context,
	r *runtimeapi.CreateContainerRequest,
) (*runtimeapi.CreateContainerResponse, error) {
	id, err := s.cfg.Containers.Create(ctx, r.PodSandboxId, r.Config)
	if err != nil {
		return nil, coded(err)
	}
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

// StartContainer starts it.
func (s *Server) StartContainer(
	ctx context.Context,
	r *runtimeapi.StartContainerRequest,
) (*runtimeapi.StartContainerResponse, error) {
	return &runtimeapi.StartContainerResponse{}, coded(s.cfg.Containers.Start(ctx, r.ContainerId))
}

// StopContainer ends it within the timeout.
func (s *Server) StopContainer(
	ctx context.Context,
	r *runtimeapi.StopContainerRequest,
) (*runtimeapi.StopContainerResponse, error) {
	err := s.cfg.Containers.Stop(ctx, r.ContainerId, seconds(r.Timeout))
	return &runtimeapi.StopContainerResponse{}, coded(err)
}

// RemoveContainer removes it, by force if it runs.
func (s *Server) RemoveContainer(
	ctx context.Context,
	r *runtimeapi.RemoveContainerRequest,
) (*runtimeapi.RemoveContainerResponse, error) {
	return &runtimeapi.RemoveContainerResponse{}, coded(s.cfg.Containers.Remove(ctx, r.ContainerId))
}

// UpdateContainerResources changes limits of a live container.
func (s *Server) UpdateContainerResources(
	ctx context.Context,
	r *runtimeapi.UpdateContainerResourcesRequest,
) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	return &runtimeapi.UpdateContainerResourcesResponse{}, coded(s.cfg.Containers.Update(
		ctx,
		r.ContainerId,
		r.Linux,
	))
}

// UpdatePodSandboxResources is a notice: kubelet has resized the pod's cgroup already.
func (s *Server) UpdatePodSandboxResources(
	_ context.Context,
	r *runtimeapi.UpdatePodSandboxResourcesRequest,
) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	_, err := s.cfg.Sandboxes.Get(r.PodSandboxId)
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, coded(err)
}

// ReopenContainerLog follows a log rotation.
func (s *Server) ReopenContainerLog(
	ctx context.Context,
	r *runtimeapi.ReopenContainerLogRequest,
) (*runtimeapi.ReopenContainerLogResponse, error) {
	return &runtimeapi.ReopenContainerLogResponse{}, coded(s.cfg.Containers.ReopenLog(ctx, r.ContainerId))
}

// ListContainers lists containers.
func (s *Server) ListContainers(
	_ context.Context,
	r *runtimeapi.ListContainersRequest,
) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{Containers: s.containers(r.Filter)}, nil
}

// StreamContainers lists containers in pieces.
func (s *Server) StreamContainers(
	r *runtimeapi.StreamContainersRequest,
	stream runtimeapi.RuntimeService_StreamContainersServer,
) error {
	for piece := range slices.Chunk(s.containers(r.Filter), piece) {
		if err := stream.Send(&runtimeapi.StreamContainersResponse{Containers: piece}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) containers(f *runtimeapi.ContainerFilter) []*runtimeapi.Container {
	var all []*runtimeapi.Container
	for _, c := range s.cfg.Containers.List() {
		config := c.ContainerConfig()
		if !strings.HasPrefix(c.ID, f.GetId()) || !strings.HasPrefix(c.Sandbox, f.GetPodSandboxId()) ||
			f.GetState() != nil && f.State.State != c.State ||
			!matches(config.GetLabels(), f.GetLabelSelector()) {
			continue
		}

		all = append(all, &runtimeapi.Container{
			Id:           c.ID,
			PodSandboxId: c.Sandbox,
			Metadata:     config.GetMetadata(),
			Image:        config.GetImage(),
			ImageRef:     c.ImageID,
			ImageId:      c.ImageID,
			State:        c.State,
			CreatedAt:    c.Created.UnixNano(),
			Labels:       config.GetLabels(),
			Annotations:  config.GetAnnotations(),
		})
	}

	slices.SortFunc(
		all,
		func(a, b *runtimeapi.Container) int { return cmp.Compare(b.CreatedAt, a.CreatedAt) },
	)

	return all
}

// ContainerStatus tells about one container.
func (s *Server) ContainerStatus(
	_ context.Context,
	r *runtimeapi.ContainerStatusRequest,
) (*runtimeapi.ContainerStatusResponse, error) {
	c, err := s.cfg.Containers.Get(r.ContainerId)
	if err != nil {
		return nil, coded(err)
	}
	resp := &runtimeapi.ContainerStatusResponse{Status: containerStatus(c)}
	if r.Verbose {
		resp.Info = info("info",
			map[string]any{"sandboxID": c.Sandbox, "pid": c.Pid, "config": c.ContainerConfig()})
	}
	return resp, nil
}

func containerStatus(c container.Record) *runtimeapi.ContainerStatus {
	config := c.ContainerConfig()
	resources := c.Resources
	if resources == nil {
		resources = config.GetLinux().GetResources()
	}

	st := &runtimeapi.ContainerStatus{
		Id:          c.ID,
		Metadata:    config.GetMetadata(),
		State:       c.State,
		CreatedAt:   c.Created.UnixNano(),
		Image:       config.GetImage(),
		ImageRef:    c.ImageID,
		ImageId:     c.ImageID,
		Labels:      config.GetLabels(),
		Annotations: config.GetAnnotations(),
		LogPath:     c.LogPath,
		Reason:      c.Reason,
		Message:     c.Message,
		ExitCode:    int32(c.Code),
		Resources:   &runtimeapi.ContainerResources{Linux: resources},
		StopSignal:  config.GetStopSignal(),
		User: &runtimeapi.ContainerUser{
			Linux: &runtimeapi.LinuxContainerUser{Uid: int64(c.User.UID), Gid: int64(c.User.GID)},
		},
	}

	st.Image, st.ImageRef = c.Image(), cmp.Or(c.ImageRef, c.ImageID)
	for _, g := range c.User.AdditionalGids {
		st.User.Linux.SupplementalGroups = append(st.User.Linux.SupplementalGroups, int64(g))
	}

	if !c.Started.IsZero() {
		st.StartedAt = c.Started.UnixNano()
	}
	if !c.Finished.IsZero() {
		st.FinishedAt = c.Finished.UnixNano()
	}

	for _, m := range config.GetMounts() {
		shown := &runtimeapi.Mount{
			ContainerPath:     m.ContainerPath,
			HostPath:          m.HostPath,
			Readonly:          m.Readonly,
			SelinuxRelabel:    m.SelinuxRelabel,
			Propagation:       m.Propagation,
			RecursiveReadOnly: m.RecursiveReadOnly,
			Image:             m.Image,
			ImageSubPath:      m.ImageSubPath,
		}
		if id := c.VolumeIDs[m.ContainerPath]; id != "" {
			shown.Image = &runtimeapi.ImageSpec{
				Image:       m.Image.Image,
				Annotations: m.Image.Annotations,
				ImageRef:    id,
			}
		}

		st.Mounts = append(st.Mounts, shown)
	}

	return st
}

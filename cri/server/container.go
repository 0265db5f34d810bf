package server

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
)

// containerCalls are about containers.
type containerCalls struct {
	containers *container.Service
}

// CreateContainer makes a container that waits for StartContainer.
func (s *containerCalls) CreateContainer(
	ctx context.Context, r *runtimeapi.CreateContainerRequest,
) (*runtimeapi.CreateContainerResponse, error) {
	id, err := s.containers.Create(ctx, r.PodSandboxId, r.Config)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

// StartContainer lets the program of a created container run.
func (s *containerCalls) StartContainer(
	ctx context.Context, r *runtimeapi.StartContainerRequest,
) (*runtimeapi.StartContainerResponse, error) {
	return &runtimeapi.StartContainerResponse{}, s.containers.Start(ctx, r.ContainerId)
}

// StopContainer asks a container to end, and kills it after the timeout.
func (s *containerCalls) StopContainer(
	ctx context.Context, r *runtimeapi.StopContainerRequest,
) (*runtimeapi.StopContainerResponse, error) {
	err := s.containers.Stop(ctx, r.ContainerId, seconds(r.Timeout))
	return &runtimeapi.StopContainerResponse{}, err
}

// RemoveContainer removes a container, by force if it runs.
func (s *containerCalls) RemoveContainer(
	ctx context.Context, r *runtimeapi.RemoveContainerRequest,
) (*runtimeapi.RemoveContainerResponse, error) {
	return &runtimeapi.RemoveContainerResponse{}, s.containers.Remove(ctx, r.ContainerId)
}

// UpdateContainerResources changes the limits of a container that has not ended.
func (s *containerCalls) UpdateContainerResources(
	ctx context.Context, r *runtimeapi.UpdateContainerResourcesRequest,
) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	err := s.containers.Update(ctx, r.ContainerId, r.Linux)
	return &runtimeapi.UpdateContainerResourcesResponse{}, err
}

// ReopenContainerLog makes a container write to a new log file after a log rotation.
func (s *containerCalls) ReopenContainerLog(
	ctx context.Context, r *runtimeapi.ReopenContainerLogRequest,
) (*runtimeapi.ReopenContainerLogResponse, error) {
	return &runtimeapi.ReopenContainerLogResponse{}, s.containers.ReopenLog(ctx, r.ContainerId)
}

// ListContainers lists containers.
func (s *containerCalls) ListContainers(
	_ context.Context, r *runtimeapi.ListContainersRequest,
) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{Containers: s.list(r.Filter)}, nil
}

// StreamContainers lists containers in pieces.
func (s *containerCalls) StreamContainers(
	r *runtimeapi.StreamContainersRequest, stream runtimeapi.RuntimeService_StreamContainersServer,
) error {
	return sendPieces(s.list(r.Filter), func(piece []*runtimeapi.Container) error {
		return stream.Send(&runtimeapi.StreamContainersResponse{Containers: piece})
	})
}

// list returns the containers that a filter selects, the newest first.
func (s *containerCalls) list(f *runtimeapi.ContainerFilter) []*runtimeapi.Container {
	var all []*runtimeapi.Container
	for _, c := range s.containers.List() {
		if !selectsContainer(f, c) {
			continue
		}

		config := c.ContainerConfig()
		all = append(all, &runtimeapi.Container{
			Id:           c.ID,
			PodSandboxId: c.Sandbox,
			Metadata:     config.GetMetadata(),
			Image:        config.GetImage(),
			ImageRef:     c.ImageID,
			ImageId:      c.ImageID,
			State:        containerState(c),
			CreatedAt:    c.Created.UnixNano(),
			Labels:       config.GetLabels(),
			Annotations:  config.GetAnnotations(),
		})
	}

	slices.SortFunc(all, func(a, b *runtimeapi.Container) int {
		return cmp.Compare(b.CreatedAt, a.CreatedAt)
	})
	return all
}

func selectsContainer(f *runtimeapi.ContainerFilter, c container.Record) bool {
	if f.GetState() != nil && f.State.State != containerState(c) {
		return false
	}
	return strings.HasPrefix(c.ID, f.GetId()) && strings.HasPrefix(c.Sandbox, f.GetPodSandboxId()) &&
		matches(c.ContainerConfig().GetLabels(), f.GetLabelSelector())
}

// containerState returns CRI's state, which has the same number.
func containerState(c container.Record) runtimeapi.ContainerState {
	return runtimeapi.ContainerState(c.State)
}

// ContainerStatus returns the status of a container.
func (s *containerCalls) ContainerStatus(
	_ context.Context, r *runtimeapi.ContainerStatusRequest,
) (*runtimeapi.ContainerStatusResponse, error) {
	c, err := s.containers.Get(r.ContainerId)
	if err != nil {
		return nil, err
	}

	resp := &runtimeapi.ContainerStatusResponse{Status: containerStatus(c)}
	if r.Verbose {
		resp.Info = info("info", map[string]any{
			"sandboxID": c.Sandbox,
			"pid":       c.Pid,
			"config":    c.ContainerConfig(),
		})
	}

	return resp, nil
}

func containerStatus(c container.Record) *runtimeapi.ContainerStatus {
	config := c.ContainerConfig()
	return &runtimeapi.ContainerStatus{
		Id:          c.ID,
		Metadata:    config.GetMetadata(),
		State:       containerState(c),
		CreatedAt:   c.Created.UnixNano(),
		StartedAt:   unixNano(c.Started),
		FinishedAt:  unixNano(c.Finished),
		ExitCode:    int32(c.Code),
		Reason:      c.Reason,
		Message:     c.Message,
		Image:       c.Image(),
		ImageRef:    cmp.Or(c.ImageRef, c.ImageID),
		ImageId:     c.ImageID,
		Labels:      config.GetLabels(),
		Annotations: config.GetAnnotations(),
		LogPath:     c.LogPath,
		Mounts:      mountStatuses(c),
		Resources:   &runtimeapi.ContainerResources{Linux: c.CurrentResources()},
		StopSignal:  config.GetStopSignal(),
		User:        userStatus(c),
	}
}

// unixNano returns 0 for a time that has not come.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func userStatus(c container.Record) *runtimeapi.ContainerUser {
	user := &runtimeapi.LinuxContainerUser{Uid: int64(c.User.UID), Gid: int64(c.User.GID)}
	for _, g := range c.User.AdditionalGids {
		user.SupplementalGroups = append(user.SupplementalGroups, int64(g))
	}
	return &runtimeapi.ContainerUser{Linux: user}
}

// mountStatuses returns the mounts of the configuration, with the IDs of the images that are mounted.
func mountStatuses(c container.Record) []*runtimeapi.Mount {
	var all []*runtimeapi.Mount
	for _, m := range c.ContainerConfig().GetMounts() {
		status := &runtimeapi.Mount{
			ContainerPath:     m.ContainerPath,
			HostPath:          m.HostPath,
			Readonly:          m.Readonly,
			SelinuxRelabel:    m.SelinuxRelabel,
			Propagation:       m.Propagation,
			RecursiveReadOnly: m.RecursiveReadOnly,
			Image:             m.Image,
			ImageSubPath:      m.ImageSubPath,
		}
		if id := c.MountedImages[m.ContainerPath]; id != "" {
			status.Image = &runtimeapi.ImageSpec{
				Image:       m.Image.Image,
				Annotations: m.Image.Annotations,
				ImageRef:    id,
			}
		}

		all = append(all, status)
	}

	return all
}

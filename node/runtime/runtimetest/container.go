package runtimetest

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Exit ends the running container of this name.
func (s *Server) Exit(name string, code int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, c := range s.containers {
		if c.Metadata.Name == name && c.State == cri.ContainerState_CONTAINER_RUNNING {
			s.exit(id, code)
		}
	}
}

// exit ends a container. The caller holds the lock.
func (s *Server) exit(id string, code int32) {
	c := s.containers[id]
	c.State = cri.ContainerState_CONTAINER_EXITED
	c.ExitCode = code
	c.FinishedAt = time.Now().UnixNano()
	s.publish(id, cri.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// label is a container's name in Calls.
func label(c *cri.ContainerStatus) string {
	return fmt.Sprintf("%s/%d", c.Metadata.Name, c.Metadata.Attempt)
}

// CreateContainer makes a container in a ready sandbox.
func (s service) CreateContainer(
	_ context.Context, r *cri.CreateContainerRequest,
) (*cri.CreateContainerResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	c := &cri.ContainerStatus{
		Metadata:    r.Config.Metadata,
		State:       cri.ContainerState_CONTAINER_CREATED,
		CreatedAt:   time.Now().UnixNano(),
		Image:       r.Config.Image,
		ImageRef:    r.Config.Image.Image,
		Labels:      r.Config.Labels,
		Annotations: r.Config.Annotations,
		Mounts:      r.Config.Mounts,
		Resources:   &cri.ContainerResources{Linux: r.Config.GetLinux().GetResources()},
		LogPath:     filepath.Join(s.logDirs[r.PodSandboxId], r.Config.LogPath),
	}
	if err := s.note("CreateContainer", label(c)); err != nil {
		return nil, err
	}

	sandbox := s.sandboxes[r.PodSandboxId]
	if sandbox == nil || sandbox.State != cri.PodSandboxState_SANDBOX_READY {
		return nil, notFound("sandbox", r.PodSandboxId)
	}

	s.noteUsers("container", r.Config.GetLinux().GetSecurityContext().GetNamespaceOptions())
	for _, m := range r.Config.Mounts {
		if len(m.UidMappings) == 1 && len(m.GidMappings) == 1 {
			s.record.mapped = append(s.record.mapped, fmt.Sprintf("mount %d", m.UidMappings[0].HostId))
		}
	}

	s.serial++
	c.Id = "container" + strconv.Itoa(s.serial)
	s.containers[c.Id], s.parents[c.Id] = c, r.PodSandboxId
	return &cri.CreateContainerResponse{ContainerId: c.Id}, nil
}

// StartContainer runs a container, which ends at once if its image says so.
func (s service) StartContainer(
	ctx context.Context, r *cri.StartContainerRequest,
) (*cri.StartContainerResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	c := s.containers[r.ContainerId]
	if c == nil {
		return nil, notFound("container", r.ContainerId)
	}
	if err := s.note("StartContainer", label(c)); err != nil {
		return nil, err
	}
	if heard := s.behaviour.unstartable[c.Metadata.Name]; heard != nil {
		s.exit(c.Id, 128)
		s.mu.Unlock()
		defer s.mu.Lock()
		return nil, refusal(ctx, heard)
	}

	c.State, c.StartedAt = cri.ContainerState_CONTAINER_RUNNING, time.Now().UnixNano()
	s.publish(c.Id, cri.ContainerEventType_CONTAINER_STARTED_EVENT)
	if code, ok := exitCodeOf(c.Image.Image); ok {
		s.exit(c.Id, code)
	}

	return &cri.StartContainerResponse{}, nil
}

// refusal is the answer to the start of a container that cannot be started, once it may be heard.
func refusal(ctx context.Context, heard <-chan struct{}) error {
	select {
	case <-heard:
		return status.Error(codes.Unknown, "executable file not found")
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// UpdateContainerResources changes what is not 0 of the resources of a container that has not ended.
func (s service) UpdateContainerResources(
	_ context.Context, r *cri.UpdateContainerResourcesRequest,
) (*cri.UpdateContainerResourcesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	c := s.containers[r.ContainerId]
	if c == nil {
		return nil, notFound("container", r.ContainerId)
	}
	if err := s.note("UpdateContainerResources", label(c)); err != nil {
		return nil, err
	}
	if c.State == cri.ContainerState_CONTAINER_EXITED {
		return nil, status.Errorf(codes.FailedPrecondition, "container %s is not running", c.Id)
	}

	changed := &cri.LinuxContainerResources{}
	proto.Merge(changed, c.Resources.GetLinux())
	proto.Merge(changed, r.Linux)
	c.Resources = &cri.ContainerResources{Linux: changed}
	return &cri.UpdateContainerResourcesResponse{}, nil
}

// exitCodeOf returns the N of an image "exit:N".
func exitCodeOf(image string) (int32, bool) {
	text, ok := strings.CutPrefix(strings.TrimPrefix(image, idPrefix), "exit:")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 32)
	return int32(n), err == nil
}

// StopContainer ends a container with code 143, or with 137 after the grace if it is stubborn.
func (s service) StopContainer(
	ctx context.Context, r *cri.StopContainerRequest,
) (*cri.StopContainerResponse, error) {
	s.mu.Lock()
	c := s.containers[r.ContainerId]
	if c == nil {
		s.mu.Unlock()
		return nil, notFound("container", r.ContainerId)
	}

	err := s.note("StopContainer", label(c)+" "+strconv.FormatInt(r.Timeout, 10))
	stubborn := s.behaviour.stubborn[c.Metadata.Name]
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}

	code := int32(143)
	if stubborn {
		code = 137
		timer := time.NewTimer(time.Duration(r.Timeout) * time.Second)
		defer timer.Stop()

		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	if c.State == cri.ContainerState_CONTAINER_RUNNING {
		s.exit(c.Id, code)
	}

	return &cri.StopContainerResponse{}, nil
}

// RemoveContainer removes a container. One that is not there is a success.
func (s service) RemoveContainer(
	_ context.Context, r *cri.RemoveContainerRequest,
) (*cri.RemoveContainerResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[r.ContainerId]; c != nil {
		if err := s.note("RemoveContainer", label(c)); err != nil {
			return nil, err
		}
	}
	delete(s.containers, r.ContainerId)
	delete(s.parents, r.ContainerId)
	return &cri.RemoveContainerResponse{}, nil
}

// ListContainers lists by label and state.
func (s service) ListContainers(
	_ context.Context, r *cri.ListContainersRequest,
) (*cri.ListContainersResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	out := &cri.ListContainersResponse{}
	want := r.GetFilter().GetState()
	for id, c := range s.containers {
		if !selected(c.Labels, r.GetFilter().GetLabelSelector()) || want != nil && c.State != want.State {
			continue
		}

		out.Containers = append(out.Containers, &cri.Container{
			Id:           id,
			PodSandboxId: s.parents[id],
			Metadata:     c.Metadata,
			State:        c.State,
			CreatedAt:    c.CreatedAt,
			Labels:       c.Labels,
		})
	}

	return out, nil
}

// ContainerStatus returns all that is known of a container.
func (s service) ContainerStatus(
	_ context.Context, r *cri.ContainerStatusRequest,
) (*cri.ContainerStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	c := s.containers[r.ContainerId]
	if c == nil {
		return nil, notFound("container", r.ContainerId)
	}

	return &cri.ContainerStatusResponse{Status: &cri.ContainerStatus{
		Id:          c.Id,
		Metadata:    c.Metadata,
		State:       c.State,
		CreatedAt:   c.CreatedAt,
		StartedAt:   c.StartedAt,
		FinishedAt:  c.FinishedAt,
		ExitCode:    c.ExitCode,
		Image:       c.Image,
		ImageRef:    c.ImageRef,
		Labels:      c.Labels,
		Annotations: c.Annotations,
		Mounts:      c.Mounts,
		Resources:   c.Resources,
		LogPath:     c.LogPath,
	}}, nil
}

// ReopenContainerLog is recorded.
func (s service) ReopenContainerLog(
	_ context.Context, r *cri.ReopenContainerLogRequest,
) (*cri.ReopenContainerLogResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &cri.ReopenContainerLogResponse{}, s.note("ReopenContainerLog", r.ContainerId)
}

// CheckpointContainer is recorded, with its timeout and file.
func (s service) CheckpointContainer(
	_ context.Context, r *cri.CheckpointContainerRequest,
) (*cri.CheckpointContainerResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[r.ContainerId]
	if c == nil {
		return nil, notFound("container", r.ContainerId)
	}
	object := fmt.Sprintf("%s %d %s", label(c), r.Timeout, r.Location)
	return &cri.CheckpointContainerResponse{}, s.note("CheckpointContainer", object)
}

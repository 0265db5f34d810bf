package runtimetest

import (
	"context"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CreateContainer makes a container.
func (s *Server) CreateContainer(
	_ context.Context,
	r *cri.CreateContainerRequest,
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
	}
	if err := s.note("CreateContainer", label(c)); err != nil {
		return nil, err
	}
	if b := s.sandboxes[r.PodSandboxId]; b == nil || b.State != cri.PodSandboxState_SANDBOX_READY {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}

	s.serial++
	c.Id = "container" + strconv.Itoa(s.serial)
	s.containers[c.Id], s.parents[c.Id] = c, r.PodSandboxId
	return &cri.CreateContainerResponse{ContainerId: c.Id}, nil
}

// StartContainer runs it.
func (s *Server) StartContainer(
	_ context.Context,
	r *cri.StartContainerRequest,
) (*cri.StartContainerResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	c := s.containers[r.ContainerId]
	if c == nil {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	if err := s.note("StartContainer", label(c)); err != nil {
		return nil, err
	}

	c.State, c.StartedAt = cri.ContainerState_CONTAINER_RUNNING, time.Now().UnixNano()
	s.publish(c.Id, cri.ContainerEventType_CONTAINER_STARTED_EVENT)
	if code, ok := exitCodeOf(c.Image.Image); ok {
		s.exit(c.Id, code)
	}

	return &cri.StartContainerResponse{}, nil
}

// StopContainer ends it: with 143, or with 137 after the grace if it is stubborn.
func (s *Server) StopContainer(
	ctx context.Context,
	r *cri.StopContainerRequest,
) (*cri.StopContainerResponse, error) {
	s.mu.Lock()
	c := s.containers[r.ContainerId]
	if c == nil {
		s.mu.Unlock()
		return nil, status.Error(codes.NotFound, "no such container")
	}

	err := s.note("StopContainer", label(c)+" "+strconv.FormatInt(r.Timeout, 10))
	stubborn := s.stubborn[c.Metadata.Name]
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

// RemoveContainer removes it.
func (s *Server) RemoveContainer(
	_ context.Context,
	r *cri.RemoveContainerRequest,
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

// ListContainers lists by label.
func (s *Server) ListContainers(
	_ context.Context,
	r *cri.ListContainersRequest,
) (*cri.ListContainersResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	out := &cri.ListContainersResponse{}
	for id, c := range s.containers {
		if selected(c.Labels, r.GetFilter().GetLabelSelector()) {
			out.Containers = append(out.Containers, &cri.Container{
				Id:           id,
				PodSandboxId: s.parents[id],
				Metadata:     c.Metadata,
				State:        c.State,
				CreatedAt:    c.CreatedAt,
				Labels:       c.Labels,
			})
		}
	}

	return out, nil
}

// ContainerStatus answers.
func (s *Server) ContainerStatus(
	_ context.Context,
	r *cri.ContainerStatusRequest,
) (*cri.ContainerStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	c := s.containers[r.ContainerId]
	if c == nil {
		return nil, status.Error(codes.NotFound, "no such container")
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
	}}, nil
}

// ExecSync answers with nothing: every command succeeds.
func (s *Server) ExecSync(_ context.Context, r *cri.ExecSyncRequest) (*cri.ExecSyncResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &cri.ExecSyncResponse{}, s.note("ExecSync", r.Cmd[0])
}

// ImageStatus knows images that were added or pulled.
func (s *Server) ImageStatus(_ context.Context, r *cri.ImageStatusRequest) (*cri.ImageStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.TrimPrefix(r.Image.Image, idPrefix)
	if !s.images[name] {
		return &cri.ImageStatusResponse{}, nil
	}
	return &cri.ImageStatusResponse{Image: &cri.Image{Id: idPrefix + name, RepoTags: []string{name}}}, nil
}

// idPrefix makes an image's ID of its name.
const idPrefix = "id-"

// Private makes pulls of an image ask for a password.
func (s *Server) Private(image, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passwords[image] = password
}

// Preload makes an image present without a pull.
func (s *Server) Preload(image string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images[image] = true
}

// PullImage makes an image present.
func (s *Server) PullImage(_ context.Context, r *cri.PullImageRequest) (*cri.PullImageResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note("PullImage", r.Image.Image); err != nil {
		return nil, err
	}
	s.users = append(s.users, r.GetAuth().GetUsername())
	if r.GetAuth().GetPassword() != s.passwords[r.Image.Image] && s.passwords[r.Image.Image] != "" {
		return nil, status.Error(codes.Unknown, "authorization failed")
	}
	s.images[r.Image.Image] = true
	return &cri.PullImageResponse{ImageRef: idPrefix + r.Image.Image}, nil
}

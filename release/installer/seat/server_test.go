package seat

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// server is a container runtime that has pods, and does with them what CRI says.
type server struct {
	cri.UnimplementedRuntimeServiceServer
	cri.UnimplementedImageServiceServer

	mu      sync.Mutex
	pods    map[string]bool
	ended   map[string]bool
	stopped []string

	// stuck keeps its sandboxes, immortal its containers, and mute does not answer.
	stuck, immortal, mute bool
}

func (s *server) Status(context.Context, *cri.StatusRequest) (*cri.StatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mute {
		return nil, errors.New("it hangs")
	}
	return &cri.StatusResponse{Status: &cri.RuntimeStatus{}}, nil
}

func (s *server) ListPodSandbox(
	context.Context, *cri.ListPodSandboxRequest,
) (*cri.ListPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := &cri.ListPodSandboxResponse{}
	for _, id := range slices.Sorted(maps.Keys(s.pods)) {
		metadata := &cri.PodSandboxMetadata{Name: id}
		answer.Items = append(answer.Items, &cri.PodSandbox{Id: id, Metadata: metadata})
	}
	return answer, nil
}

func (s *server) ListContainers(
	context.Context, *cri.ListContainersRequest,
) (*cri.ListContainersResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := &cri.ListContainersResponse{}
	if s.mute {
		return nil, errors.New("it hangs")
	}
	for id := range s.pods {
		state := cri.ContainerState_CONTAINER_RUNNING
		if s.ended[id+"-container"] {
			state = cri.ContainerState_CONTAINER_EXITED
		}
		answer.Containers = append(answer.Containers, &cri.Container{
			Id:           id + "-container",
			PodSandboxId: id,
			State:        state,
		})
	}
	return answer, nil
}

func (s *server) StopContainer(
	_ context.Context, r *cri.StopContainerRequest,
) (*cri.StopContainerResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = append(s.stopped, fmt.Sprintf("%s within %d s", r.ContainerId, r.Timeout))
	if s.immortal {
		return nil, errors.New("it does not end")
	}
	s.ended[r.ContainerId] = true
	return &cri.StopContainerResponse{}, nil
}

func (s *server) StopPodSandbox(
	context.Context, *cri.StopPodSandboxRequest,
) (*cri.StopPodSandboxResponse, error) {
	return &cri.StopPodSandboxResponse{}, nil
}

func (s *server) RemovePodSandbox(
	_ context.Context, r *cri.RemovePodSandboxRequest,
) (*cri.RemovePodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stuck || s.immortal {
		return nil, fmt.Errorf("its mounts are busy")
	}
	delete(s.pods, r.PodSandboxId)
	return &cri.RemovePodSandboxResponse{}, nil
}

func (s *server) ImageStatus(context.Context, *cri.ImageStatusRequest) (*cri.ImageStatusResponse, error) {
	return &cri.ImageStatusResponse{}, nil
}

func (s *server) has() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.pods))
}

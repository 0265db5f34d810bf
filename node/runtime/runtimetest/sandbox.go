package runtimetest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Resolvers returns the name servers of each sandbox that was made, in order.
func (s *Server) Resolvers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.record.resolvers)
}

// RunPodSandbox makes a sandbox with the address 10.0.0.N.
func (s service) RunPodSandbox(
	_ context.Context, r *cri.RunPodSandboxRequest,
) (*cri.RunPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if err := s.note("RunPodSandbox", fmt.Sprint(r.Config.Metadata.Attempt)); err != nil {
		return nil, err
	}

	s.record.resolvers = append(s.record.resolvers, strings.Join(r.Config.GetDnsConfig().GetServers(), ","))
	s.noteUsers("sandbox", r.Config.GetLinux().GetSecurityContext().GetNamespaceOptions())
	s.serial++
	id := "sandbox" + strconv.Itoa(s.serial)
	s.logDirs[id] = r.Config.LogDirectory
	s.sandboxes[id] = &cri.PodSandboxStatus{
		Id:          id,
		Metadata:    r.Config.Metadata,
		State:       cri.PodSandboxState_SANDBOX_READY,
		CreatedAt:   time.Now().UnixNano(),
		Labels:      r.Config.Labels,
		Annotations: r.Config.Annotations,
		Network:     &cri.PodSandboxNetworkStatus{Ip: "10.0.0." + strconv.Itoa(s.serial)},
	}

	return &cri.RunPodSandboxResponse{PodSandboxId: id}, nil
}

// UpdatePodSandboxResources records the call alone.
func (s service) UpdatePodSandboxResources(
	_ context.Context, r *cri.UpdatePodSandboxResourcesRequest,
) (*cri.UpdatePodSandboxResourcesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &cri.UpdatePodSandboxResourcesResponse{}, s.note("UpdatePodSandboxResources", r.PodSandboxId)
}

// StopPodSandbox stops a sandbox and its containers.
func (s service) StopPodSandbox(
	_ context.Context, r *cri.StopPodSandboxRequest,
) (*cri.StopPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if err := s.note("StopPodSandbox", r.PodSandboxId); err != nil {
		return nil, err
	}

	for id, parent := range s.parents {
		if parent == r.PodSandboxId && s.containers[id].State == cri.ContainerState_CONTAINER_RUNNING {
			s.exit(id, 137)
		}
	}

	if sandbox := s.sandboxes[r.PodSandboxId]; sandbox != nil {
		sandbox.State = cri.PodSandboxState_SANDBOX_NOTREADY
	}

	return &cri.StopPodSandboxResponse{}, nil
}

// RemovePodSandbox removes a sandbox and its containers.
func (s service) RemovePodSandbox(
	_ context.Context, r *cri.RemovePodSandboxRequest,
) (*cri.RemovePodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if err := s.note("RemovePodSandbox", r.PodSandboxId); err != nil {
		return nil, err
	}

	for id, parent := range s.parents {
		if parent == r.PodSandboxId {
			delete(s.containers, id)
			delete(s.parents, id)
		}
	}

	delete(s.sandboxes, r.PodSandboxId)
	delete(s.logDirs, r.PodSandboxId)
	return &cri.RemovePodSandboxResponse{}, nil
}

// ListPodSandbox lists by label and state.
func (s service) ListPodSandbox(
	_ context.Context, r *cri.ListPodSandboxRequest,
) (*cri.ListPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	out := &cri.ListPodSandboxResponse{}
	want := r.GetFilter().GetState()
	for _, one := range s.sandboxes {
		if !selected(one.Labels, r.GetFilter().GetLabelSelector()) || want != nil && one.State != want.State {
			continue
		}

		out.Items = append(out.Items, &cri.PodSandbox{
			Id:          one.Id,
			Metadata:    one.Metadata,
			State:       one.State,
			CreatedAt:   one.CreatedAt,
			Labels:      one.Labels,
			Annotations: one.Annotations,
		})
	}

	return out, nil
}

// PodSandboxStatus returns a sandbox with its addresses.
func (s service) PodSandboxStatus(
	_ context.Context, r *cri.PodSandboxStatusRequest,
) (*cri.PodSandboxStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.sandboxes[r.PodSandboxId]
	if one == nil {
		return nil, notFound("sandbox", r.PodSandboxId)
	}
	return &cri.PodSandboxStatusResponse{Status: copyOf(one)}, nil
}

// copyOf returns a copy of a sandbox, which is sent while the sandbox goes on changing.
func copyOf(one *cri.PodSandboxStatus) *cri.PodSandboxStatus {
	return &cri.PodSandboxStatus{
		Id:        one.GetId(),
		Metadata:  one.GetMetadata(),
		State:     one.GetState(),
		CreatedAt: one.GetCreatedAt(),
		Labels:    one.GetLabels(),
		Network:   one.GetNetwork(),
	}
}

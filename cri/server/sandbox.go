package server

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/record"
	"github.com/trivet-node/trivet/cri/sandbox"
)

// sandboxCalls are about pod sandboxes.
type sandboxCalls struct {
	sandboxes  *sandbox.Service
	containers *container.Service
}

// RunPodSandbox makes a pod's sandbox.
func (s *sandboxCalls) RunPodSandbox(
	ctx context.Context, r *runtimeapi.RunPodSandboxRequest,
) (*runtimeapi.RunPodSandboxResponse, error) {
	id, err := s.sandboxes.Run(ctx, r.Config, r.RuntimeHandler)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

// StopPodSandbox kills what runs in the pod, then releases its network and namespaces. A sandbox that does
// not exist is success.
func (s *sandboxCalls) StopPodSandbox(
	ctx context.Context, r *runtimeapi.StopPodSandboxRequest,
) (*runtimeapi.StopPodSandboxResponse, error) {
	pod, err := s.sandboxes.Get(r.PodSandboxId)
	if errors.Is(err, record.ErrNotFound) {
		return &runtimeapi.StopPodSandboxResponse{}, nil
	}
	if err == nil {
		err = s.stop(ctx, pod.ID)
	}
	return &runtimeapi.StopPodSandboxResponse{}, err
}

func (s *sandboxCalls) stop(ctx context.Context, id string) error {
	if err := s.each(id, func(id string) error { return s.containers.Stop(ctx, id, 0) }); err != nil {
		return err
	}
	if err := s.sandboxes.Stop(ctx, id); err != nil {
		return err
	}
	// Clients that have given up a creation do not know of its container.
	return s.containers.AwaitCreations(ctx, id)
}

// RemovePodSandbox removes the pod with all its containers. A sandbox that does not exist is success.
func (s *sandboxCalls) RemovePodSandbox(
	ctx context.Context, r *runtimeapi.RemovePodSandboxRequest,
) (*runtimeapi.RemovePodSandboxResponse, error) {
	pod, err := s.sandboxes.Get(r.PodSandboxId)
	if errors.Is(err, record.ErrNotFound) {
		return &runtimeapi.RemovePodSandboxResponse{}, nil
	}
	if err == nil {
		err = s.remove(ctx, pod)
	}
	return &runtimeapi.RemovePodSandboxResponse{}, err
}

func (s *sandboxCalls) remove(ctx context.Context, pod sandbox.Record) error {
	// Once it is stopped, no container is begun in it any more.
	if pod.State == life.Ready {
		if err := s.stop(ctx, pod.ID); err != nil {
			return err
		}
	}

	if err := s.containers.AwaitCreations(ctx, pod.ID); err != nil {
		return err
	}
	if err := s.each(pod.ID, func(id string) error { return s.containers.Remove(ctx, id) }); err != nil {
		return err
	}

	return s.sandboxes.Remove(ctx, pod.ID)
}

// each calls f for all containers of a sandbox at once.
func (s *sandboxCalls) each(sandboxID string, f func(id string) error) error {
	containers := s.containers.Of(sandboxID)
	errs := make([]error, len(containers))
	var group sync.WaitGroup
	for i, c := range containers {
		group.Go(func() { errs[i] = f(c.ID) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// PodSandboxStatus returns the status of a sandbox.
func (s *sandboxCalls) PodSandboxStatus(
	_ context.Context, r *runtimeapi.PodSandboxStatusRequest,
) (*runtimeapi.PodSandboxStatusResponse, error) {
	pod, err := s.sandboxes.Get(r.PodSandboxId)
	if err != nil {
		return nil, err
	}

	resp := &runtimeapi.PodSandboxStatusResponse{Status: sandboxStatus(pod)}
	if r.Verbose {
		resp.Info = info("info", map[string]any{
			"netns":          s.sandboxes.Netns(pod),
			"pid":            pod.InitPid,
			"runtimeHandler": pod.Handler,
			"config":         pod.PodConfig(),
		})
	}

	return resp, nil
}

func sandboxState(pod sandbox.Record) runtimeapi.PodSandboxState {
	if pod.State == life.Ready {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

func sandboxStatus(pod sandbox.Record) *runtimeapi.PodSandboxStatus {
	config := pod.PodConfig()
	status := &runtimeapi.PodSandboxStatus{
		Id:             pod.ID,
		Metadata:       config.GetMetadata(),
		State:          sandboxState(pod),
		CreatedAt:      pod.Created.UnixNano(),
		Network:        &runtimeapi.PodSandboxNetworkStatus{},
		Labels:         config.GetLabels(),
		Annotations:    config.GetAnnotations(),
		RuntimeHandler: pod.Handler,
		Linux: &runtimeapi.LinuxPodSandboxStatus{
			Namespaces: &runtimeapi.Namespace{Options: pod.Options()},
		},
	}
	if pod.State != life.Ready || len(pod.IPs) == 0 {
		return status
	}

	status.Network.Ip = pod.IPs[0].String()
	for _, ip := range pod.IPs[1:] {
		more := &runtimeapi.PodIP{Ip: ip.String()}
		status.Network.AdditionalIps = append(status.Network.AdditionalIps, more)
	}

	return status
}

// ListPodSandbox lists sandboxes.
func (s *sandboxCalls) ListPodSandbox(
	_ context.Context, r *runtimeapi.ListPodSandboxRequest,
) (*runtimeapi.ListPodSandboxResponse, error) {
	return &runtimeapi.ListPodSandboxResponse{Items: s.list(r.Filter)}, nil
}

// StreamPodSandboxes lists sandboxes in pieces.
func (s *sandboxCalls) StreamPodSandboxes(
	r *runtimeapi.StreamPodSandboxesRequest, stream runtimeapi.RuntimeService_StreamPodSandboxesServer,
) error {
	return sendPieces(s.list(r.Filter), func(piece []*runtimeapi.PodSandbox) error {
		return stream.Send(&runtimeapi.StreamPodSandboxesResponse{PodSandboxes: piece})
	})
}

// list returns the sandboxes that a filter selects, the newest first.
func (s *sandboxCalls) list(f *runtimeapi.PodSandboxFilter) []*runtimeapi.PodSandbox {
	var all []*runtimeapi.PodSandbox
	for _, pod := range s.sandboxes.List() {
		if !selectsSandbox(f, pod) {
			continue
		}

		config := pod.PodConfig()
		all = append(all, &runtimeapi.PodSandbox{
			Id:             pod.ID,
			Metadata:       config.GetMetadata(),
			State:          sandboxState(pod),
			CreatedAt:      pod.Created.UnixNano(),
			Labels:         config.GetLabels(),
			Annotations:    config.GetAnnotations(),
			RuntimeHandler: pod.Handler,
		})
	}

	slices.SortFunc(all, func(a, b *runtimeapi.PodSandbox) int {
		return cmp.Compare(b.CreatedAt, a.CreatedAt)
	})
	return all
}

func selectsSandbox(f *runtimeapi.PodSandboxFilter, pod sandbox.Record) bool {
	if f.GetState() != nil && f.State.State != sandboxState(pod) {
		return false
	}
	return strings.HasPrefix(pod.ID, f.GetId()) && matches(pod.PodConfig().GetLabels(), f.GetLabelSelector())
}

// UpdatePodSandboxResources is a notice: kubelet has resized the pod's control group itself, or is about to.
// It shows in the pod's metrics and in its configuration in the verbose status.
func (s *sandboxCalls) UpdatePodSandboxResources(
	_ context.Context, r *runtimeapi.UpdatePodSandboxResourcesRequest,
) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	err := s.sandboxes.Update(r.PodSandboxId, r.Overhead, r.Resources)
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, err
}

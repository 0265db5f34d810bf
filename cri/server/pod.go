package server

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/sandbox"
)

// RunPodSandbox makes a pod's sandbox.
func (s *Server) RunPodSandbox(
	ctx context.Context,
	r *runtimeapi.RunPodSandboxRequest,
) (*runtimeapi.RunPodSandboxResponse, error) {
	if err := s.cfg.Driver.Check(r.Config.GetLinux().GetCgroupParent()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	id, err := s.cfg.Sandboxes.Run(ctx, r.Config, r.RuntimeHandler)
	if err != nil {
		return nil, coded(err)
	}
	s.cfg.Events.sandbox(s, id, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

// StopPodSandbox kills what runs in the pod, then takes its network and namespaces.
func (s *Server) StopPodSandbox(
	ctx context.Context,
	r *runtimeapi.StopPodSandboxRequest,
) (*runtimeapi.StopPodSandboxResponse, error) {
	box, err := s.cfg.Sandboxes.Get(r.PodSandboxId)
	if errors.Is(err, sandbox.ErrNotFound) {
		return &runtimeapi.StopPodSandboxResponse{}, nil
	}
	if err == nil {
		err = s.each(box.ID, func(id string) error { return s.cfg.Containers.Stop(ctx, id, 0) })
	}
	if err == nil {
		err = s.cfg.Sandboxes.Stop(ctx, box.ID)
	}
	if err != nil {
		return nil, coded(err)
	}
	if box.State == sandbox.Ready {
		s.cfg.Events.sandbox(s, box.ID, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}

	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// RemovePodSandbox removes the pod with all its containers.
func (s *Server) RemovePodSandbox(
	ctx context.Context,
	r *runtimeapi.RemovePodSandboxRequest,
) (*runtimeapi.RemovePodSandboxResponse, error) {
	box, err := s.cfg.Sandboxes.Get(r.PodSandboxId)
	if errors.Is(err, sandbox.ErrNotFound) {
		return &runtimeapi.RemovePodSandboxResponse{}, nil
	}
	if err == nil {
		err = s.each(box.ID, func(id string) error { return s.cfg.Containers.Remove(ctx, id) })
	}
	if err == nil {
		err = s.cfg.Sandboxes.Remove(ctx, box.ID)
	}
	if err != nil {
		return nil, coded(err)
	}

	s.cfg.Events.sandbox(s, box.ID, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

// each runs f for all containers of a pod at once.
func (s *Server) each(sandboxID string, f func(id string) error) error {
	all := s.cfg.Containers.Of(sandboxID)
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, c := range all {
		wg.Go(func() { errs[i] = f(c.ID) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// PodSandboxStatus tells about one sandbox.
func (s *Server) PodSandboxStatus(
	_ context.Context,
	r *runtimeapi.PodSandboxStatusRequest,
) (*runtimeapi.PodSandboxStatusResponse, error) {
	box, err := s.cfg.Sandboxes.Get(r.PodSandboxId)
	if err != nil {
		return nil, coded(err)
	}

	resp := &runtimeapi.PodSandboxStatusResponse{Status: podStatus(box)}
	if r.Verbose {
		resp.Info = info("info", map[string]any{
			"netns":          s.cfg.Sandboxes.Netns(box),
			"pid":            box.Pause,
			"runtimeHandler": box.Handler,
			"config":         box.PodConfig(),
		})
	}

	return resp, nil
}

func podState(b sandbox.Record) runtimeapi.PodSandboxState {
	if b.State == sandbox.Ready {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

func podStatus(b sandbox.Record) *runtimeapi.PodSandboxStatus {
	config := b.PodConfig()
	st := &runtimeapi.PodSandboxStatus{
		Id:             b.ID,
		Metadata:       config.GetMetadata(),
		State:          podState(b),
		CreatedAt:      b.Created.UnixNano(),
		Labels:         config.GetLabels(),
		Annotations:    config.GetAnnotations(),
		RuntimeHandler: b.Handler,
		Network:        &runtimeapi.PodSandboxNetworkStatus{},
		Linux: &runtimeapi.LinuxPodSandboxStatus{
			Namespaces: &runtimeapi.Namespace{Options: b.Options()},
		},
	}
	if b.State != sandbox.Ready {
		return st
	}

	for i, ip := range b.IPs {
		if i == 0 {
			st.Network.Ip = ip.String()
			continue
		}

		st.Network.AdditionalIps = append(st.Network.AdditionalIps, &runtimeapi.PodIP{Ip: ip.String()})
	}

	return st
}

// ListPodSandbox lists sandboxes.
func (s *Server) ListPodSandbox(
	_ context.Context,
	r *runtimeapi.ListPodSandboxRequest,
) (*runtimeapi.ListPodSandboxResponse, error) {
	return &runtimeapi.ListPodSandboxResponse{Items: s.pods(r.Filter)}, nil
}

// StreamPodSandboxes lists sandboxes in pieces.
func (s *Server) StreamPodSandboxes(
	r *runtimeapi.StreamPodSandboxesRequest,
	stream runtimeapi.RuntimeService_StreamPodSandboxesServer,
) error {
	for piece := range slices.Chunk(s.pods(r.Filter), piece) {
		if err := stream.Send(&runtimeapi.StreamPodSandboxesResponse{PodSandboxes: piece}); err != nil {
			return err
		}
	}
	return nil
}

// piece is how many objects go into one message of a stream, far below gRPC's limit of 16 MiB.
const piece = 1000

func (s *Server) pods(f *runtimeapi.PodSandboxFilter) []*runtimeapi.PodSandbox {
	var all []*runtimeapi.PodSandbox
	for _, b := range s.cfg.Sandboxes.List() {
		if !strings.HasPrefix(b.ID, f.GetId()) || f.GetState() != nil && f.State.State != podState(b) ||
			!matches(b.PodConfig().GetLabels(), f.GetLabelSelector()) {
			continue
		}

		all = append(all, &runtimeapi.PodSandbox{
			Id:             b.ID,
			Metadata:       b.PodConfig().GetMetadata(),
			State:          podState(b),
			CreatedAt:      b.Created.UnixNano(),
			Labels:         b.PodConfig().GetLabels(),
			Annotations:    b.PodConfig().GetAnnotations(),
			RuntimeHandler: b.Handler,
		})
	}

	slices.SortFunc(
		all,
		func(a, b *runtimeapi.PodSandbox) int { return cmp.Compare(b.CreatedAt, a.CreatedAt) },
	)

	return all
}

func matches(labels, selector map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

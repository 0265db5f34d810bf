package server

import (
	"context"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/stats"
)

// statsCalls return what containers and pods use, as statistics and as metrics.
type statsCalls struct {
	sandboxes  *sandbox.Service
	containers *container.Service
	stats      *stats.Reader
}

// ContainerStats returns the stats of a container.
func (s *statsCalls) ContainerStats(
	_ context.Context, r *runtimeapi.ContainerStatsRequest,
) (*runtimeapi.ContainerStatsResponse, error) {
	c, err := s.containers.Get(r.ContainerId)
	if err != nil {
		return nil, err
	}
	st, err := s.stats.Container(c)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ContainerStatsResponse{Stats: st}, nil
}

// ListContainerStats returns those of all containers that a filter selects.
func (s *statsCalls) ListContainerStats(
	_ context.Context, r *runtimeapi.ListContainerStatsRequest,
) (*runtimeapi.ListContainerStatsResponse, error) {
	return &runtimeapi.ListContainerStatsResponse{Stats: s.ofContainers(r.Filter)}, nil
}

// StreamContainerStats returns them in pieces.
func (s *statsCalls) StreamContainerStats(
	r *runtimeapi.StreamContainerStatsRequest, stream runtimeapi.RuntimeService_StreamContainerStatsServer,
) error {
	return sendPieces(s.ofContainers(r.Filter), func(piece []*runtimeapi.ContainerStats) error {
		return stream.Send(&runtimeapi.StreamContainerStatsResponse{ContainerStats: piece})
	})
}

func (s *statsCalls) ofContainers(f *runtimeapi.ContainerStatsFilter) []*runtimeapi.ContainerStats {
	all := s.containers.List()
	s.stats.Keep(all)

	selected := slices.DeleteFunc(all, func(c container.Record) bool {
		return !strings.HasPrefix(c.ID, f.GetId()) || !strings.HasPrefix(c.Sandbox, f.GetPodSandboxId()) ||
			!matches(c.ContainerConfig().GetLabels(), f.GetLabelSelector())
	})
	return s.stats.Containers(selected)
}

// PodSandboxStats returns the stats of a pod and of its containers.
func (s *statsCalls) PodSandboxStats(
	_ context.Context, r *runtimeapi.PodSandboxStatsRequest,
) (*runtimeapi.PodSandboxStatsResponse, error) {
	pod, err := s.sandboxes.Get(r.PodSandboxId)
	if err != nil {
		return nil, err
	}
	st := s.stats.Pod(stats.Pod{Sandbox: pod, Containers: s.containers.Of(pod.ID)})
	return &runtimeapi.PodSandboxStatsResponse{Stats: st}, nil
}

// ListPodSandboxStats returns those of all ready pods that a filter selects.
func (s *statsCalls) ListPodSandboxStats(
	_ context.Context, r *runtimeapi.ListPodSandboxStatsRequest,
) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	return &runtimeapi.ListPodSandboxStatsResponse{Stats: s.ofPods(r.Filter)}, nil
}

// StreamPodSandboxStats returns them in pieces.
func (s *statsCalls) StreamPodSandboxStats(
	r *runtimeapi.StreamPodSandboxStatsRequest, stream runtimeapi.RuntimeService_StreamPodSandboxStatsServer,
) error {
	return sendPieces(s.ofPods(r.Filter), func(piece []*runtimeapi.PodSandboxStats) error {
		return stream.Send(&runtimeapi.StreamPodSandboxStatsResponse{PodSandboxStats: piece})
	})
}

func (s *statsCalls) ofPods(f *runtimeapi.PodSandboxStatsFilter) []*runtimeapi.PodSandboxStats {
	return s.stats.Pods(s.readyPods(func(pod sandbox.Record) bool {
		labels := pod.PodConfig().GetLabels()
		return strings.HasPrefix(pod.ID, f.GetId()) && matches(labels, f.GetLabelSelector())
	}))
}

// readyPods returns the ready pods that are selected, with their containers.
func (s *statsCalls) readyPods(selected func(sandbox.Record) bool) []stats.Pod {
	all := s.containers.List()
	s.stats.Keep(all)

	byPod := map[string][]container.Record{}
	for _, c := range all {
		byPod[c.Sandbox] = append(byPod[c.Sandbox], c)
	}

	var pods []stats.Pod
	for _, pod := range s.sandboxes.List() {
		if pod.State == life.Ready && selected(pod) {
			pods = append(pods, stats.Pod{Sandbox: pod, Containers: byPod[pod.ID]})
		}
	}

	return pods
}

// ListMetricDescriptors describes the metrics of ListPodSandboxMetrics.
func (s *statsCalls) ListMetricDescriptors(
	context.Context, *runtimeapi.ListMetricDescriptorsRequest,
) (*runtimeapi.ListMetricDescriptorsResponse, error) {
	return &runtimeapi.ListMetricDescriptorsResponse{Descriptors: s.stats.Descriptors()}, nil
}

// ListPodSandboxMetrics returns the metrics of all ready pods and of their containers.
func (s *statsCalls) ListPodSandboxMetrics(
	context.Context, *runtimeapi.ListPodSandboxMetricsRequest,
) (*runtimeapi.ListPodSandboxMetricsResponse, error) {
	return &runtimeapi.ListPodSandboxMetricsResponse{PodMetrics: s.stats.Metrics(s.readyPods(anyPod))}, nil
}

// metricsPieceSize is how many pods go into one message of StreamPodSandboxMetrics: the metrics of a pod and
// of one container take some 40 KB.
const metricsPieceSize = 50

// StreamPodSandboxMetrics returns them in pieces, each of which is made when the one before it was sent.
func (s *statsCalls) StreamPodSandboxMetrics(
	_ *runtimeapi.StreamPodSandboxMetricsRequest,
	stream runtimeapi.RuntimeService_StreamPodSandboxMetricsServer,
) error {
	for pods := range slices.Chunk(s.readyPods(anyPod), metricsPieceSize) {
		piece := &runtimeapi.StreamPodSandboxMetricsResponse{PodSandboxMetrics: s.stats.Metrics(pods)}
		if err := stream.Send(piece); err != nil {
			return err
		}
	}
	return nil
}

func anyPod(sandbox.Record) bool { return true }

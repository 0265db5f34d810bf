package server

import (
	"context"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/sandbox"
)

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

// metricsPieceSize is how many pods go into one message of StreamPodSandboxMetrics: the metrics of a pod and of
// one container take some 40 KB.
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

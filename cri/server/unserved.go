package server

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// unservedCalls are those of the RuntimeService that are not served: checkpoints, and the metrics that
// kubelet asks for only if it takes all its stats from the runtime. They are written down one by one, so that
// a call that is new in CRI is a decision to be made, not one that fails unseen.
type unservedCalls struct {
	runtimeapi.UnsafeRuntimeServiceServer
}

var errUnserved = status.Error(codes.Unimplemented, "trivet-cri does not serve this call")

// CheckpointContainer is not served.
func (unservedCalls) CheckpointContainer(
	context.Context, *runtimeapi.CheckpointContainerRequest,
) (*runtimeapi.CheckpointContainerResponse, error) {
	return nil, errUnserved
}

// CheckpointPod is not served.
func (unservedCalls) CheckpointPod(
	context.Context, *runtimeapi.CheckpointPodRequest,
) (*runtimeapi.CheckpointPodResponse, error) {
	return nil, errUnserved
}

// RestorePod is not served.
func (unservedCalls) RestorePod(
	context.Context, *runtimeapi.RestorePodRequest,
) (*runtimeapi.RestorePodResponse, error) {
	return nil, errUnserved
}

// ListMetricDescriptors is not served.
func (unservedCalls) ListMetricDescriptors(
	context.Context, *runtimeapi.ListMetricDescriptorsRequest,
) (*runtimeapi.ListMetricDescriptorsResponse, error) {
	return nil, errUnserved
}

// ListPodSandboxMetrics is not served.
func (unservedCalls) ListPodSandboxMetrics(
	context.Context, *runtimeapi.ListPodSandboxMetricsRequest,
) (*runtimeapi.ListPodSandboxMetricsResponse, error) {
	return nil, errUnserved
}

// StreamPodSandboxMetrics is not served.
func (unservedCalls) StreamPodSandboxMetrics(
	*runtimeapi.StreamPodSandboxMetricsRequest, runtimeapi.RuntimeService_StreamPodSandboxMetricsServer,
) error {
	return errUnserved
}

package server

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// unservedCalls are those of the RuntimeService that are not served: checkpoints. They are written down one
// by one, so that a call that is new in CRI is a decision to be made, not one that fails unseen.
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

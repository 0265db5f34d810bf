package driver

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trivet-node/trivet/csi/changedblocks"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
)

// errorCodes is the one place where gRPC codes are chosen. Callers act on them: external-provisioner chooses
// another node after RESOURCE_EXHAUSTED, repeats after ABORTED and DEADLINE_EXCEEDED, and waits long after
// INVALID_ARGUMENT (CSI spec, "Error Scheme").
var errorCodes = []struct {
	err  error
	code codes.Code
}{
	{errAborted, codes.Aborted},
	{volume.ErrInvalid, codes.InvalidArgument},
	{target.ErrOutside, codes.InvalidArgument},
	{volume.ErrKey, codes.Unauthenticated},
	{errElsewhere, codes.ResourceExhausted}, // it wraps the next one
	{volume.ErrNotFound, codes.NotFound},
	{volume.ErrConflict, codes.AlreadyExists},
	{volume.ErrFull, codes.ResourceExhausted},
	{volume.ErrSize, codes.OutOfRange},
	{volume.ErrInUse, codes.FailedPrecondition},
	{volume.ErrNotStaged, codes.FailedPrecondition},
	{volume.ErrNotAttached, codes.FailedPrecondition},
	{changedblocks.ErrNoBlocks, codes.FailedPrecondition},
	{volume.ErrDamaged, codes.DataLoss},
	{volume.ErrUnavailable, codes.Unavailable},
	{target.ErrBusy, codes.Internal},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
}

// errAborted is a page token that this driver did not return, for which the spec demands ABORTED.
var errAborted = errors.New("unknown starting token")

// errElsewhere is a content source that is not on this node, for a volume that some nodes may have. An
// orchestrator that asks by node has read that the source exists, so that it is on another one, and has to
// ask there: "unable to provision in accessible_topology".
var errElsewhere = errors.New("the content source is on another node")

// toStatus gives an error its code. One that has a code keeps it.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}

	for _, c := range errorCodes {
		if errors.Is(err, c.err) {
			return status.Error(c.code, err.Error())
		}
	}

	return status.Error(codes.Internal, err.Error())
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{volume.ErrInvalid}, args...)...)
}

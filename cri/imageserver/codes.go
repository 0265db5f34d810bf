package imageserver

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/registry"
)

// coded gives an error its gRPC code. Kubelet tells a retry from a failure by some of them.
func coded(err error) error {
	code := codes.Unknown
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, registry.ErrDenied):
		code = codes.PermissionDenied
	case errors.Is(err, image.ErrNotFound), errors.Is(err, registry.ErrNotFound):
		code = codes.NotFound
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		code = codes.ResourceExhausted
	}

	return status.Error(code, bounded(err.Error()))
}

// bounded cuts an error in the middle: registries and images have a part in it, and it becomes an event of
// the pod.
func bounded(text string) string {
	const most = 4 << 10
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most/2], "") + " ... " + strings.ToValidUTF8(text[len(text)-most/2:], "")
}

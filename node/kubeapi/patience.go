package kubeapi

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Patient calls read again, for about a second, while the API server answers Forbidden. The Node authorizer
// allows a node what its pods refer to, and learns of a pod from a watch of its own: often some milliseconds
// after the node has begun to act on it.
func Patient(ctx context.Context, read func() error) error {
	for wait := 5 * time.Millisecond; ; wait *= 2 {
		err := read()
		if !apierrors.IsForbidden(err) || wait > 640*time.Millisecond {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

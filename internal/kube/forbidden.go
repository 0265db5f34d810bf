package kube

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trivet-node/trivet/internal/retry"
)

// The first and the last pause of RetryForbidden.
const (
	firstForbidden = 5 * time.Millisecond
	lastForbidden  = 640 * time.Millisecond
)

// RetryForbidden calls read until the API server does not answer Forbidden any more, for about a second. The
// Node authorizer allows a node what its pods refer to, and learns of a pod from a watch of its own: often
// some milliseconds after the node has begun to act on it.
func RetryForbidden(ctx context.Context, read func() error) error {
	var err error
	for pause := range (retry.Backoff{First: firstForbidden}).Attempts(ctx) {
		if err = read(); !apierrors.IsForbidden(err) || pause > lastForbidden {
			return err
		}
	}
	return err
}

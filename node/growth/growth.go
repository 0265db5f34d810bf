package growth

import (
	"context"
	"errors"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Claims records in the API how far a claim has grown (Status).
type Claims interface {
	// Growing notes that the node's part has begun, and returns the claim with that.
	Growing(ctx context.Context, claim *v1.PersistentVolumeClaim) (*v1.PersistentVolumeClaim, error)

	// NotGrown notes why a size was not reached, and whether it is to be tried again.
	NotGrown(ctx context.Context, claim *v1.PersistentVolumeClaim, size resource.Quantity, cause error) error

	// Grown writes the size that the pod has now into the status of the claim.
	Grown(ctx context.Context, claim *v1.PersistentVolumeClaim, size resource.Quantity) error
}

// Grow has expand do the node's part for a volume that was made larger, and records it in its claim; with nil
// claims it records nothing. A volume that is as large as its claim shows is left alone. What expand returns
// is judged by the codes of CSI; an error without one is final, and tried again.
func Grow(
	ctx context.Context,
	claims Claims,
	claim *v1.PersistentVolumeClaim,
	pv *v1.PersistentVolume,
	expand func(context.Context, resource.Quantity) error,
) error {
	// The controller, or an administrator, makes the volume larger; the node's part is done when the claim
	// shows that size, too. What was found infeasible waits for another size.
	size := pv.Spec.Capacity[v1.ResourceStorage]
	have := claim.Status.Capacity[v1.ResourceStorage]
	if size.Cmp(have) <= 0 || stage(claim) == v1.PersistentVolumeClaimNodeResizeInfeasible {
		return nil
	}

	if claims == nil {
		return expand(ctx, size)
	}

	claim, err := claims.Growing(ctx, claim)
	if err != nil {
		return err
	}
	if err := expand(ctx, size); err != nil {
		return errors.Join(err, claims.NotGrown(ctx, claim, size, err))
	}

	return claims.Grown(ctx, claim, size)
}

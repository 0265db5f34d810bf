// Package growth makes what a pod has of a volume as large as the volume is by now, and records in the claim
// how far that has come, as users and the external resizer read it (RecoverVolumeExpansionFailure, KEP-1790).
package growth

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/node/csiplugin"
)

// stage is how far a claim has grown.
func stage(claim *v1.PersistentVolumeClaim) v1.ClaimResourceStatus {
	return claim.Status.AllocatedResourceStatuses[v1.ResourceStorage]
}

// Status writes the statuses of the claims of a cluster. A write fails on a conflict when the claim has
// been changed since it was read; the next attempt does it again.
type Status struct {
	Claims kube.Objects[v1.PersistentVolumeClaim]
}

// Growing sets NodeResizeInProgress.
func (s Status) Growing(
	ctx context.Context,
	claim *v1.PersistentVolumeClaim,
) (*v1.PersistentVolumeClaim, error) {
	if stage(claim) == v1.PersistentVolumeClaimNodeResizeInProgress {
		return claim, nil
	}
	return s.patch(ctx, claim, map[string]any{
		"allocatedResourceStatuses": storageIs(v1.PersistentVolumeClaimNodeResizeInProgress),
	})
}

// NotGrown sets the condition NodeResizeError, and NodeResizeInfeasible for what no repetition makes better,
// or is to be repeated no more: the claim asks for another size since an attempt has failed, and only after
// NodeResizeInfeasible does the resizer begin with that one. After an error that leaves open whether the
// volume has grown it does nothing.
func (s Status) NotGrown(
	ctx context.Context,
	claim *v1.PersistentVolumeClaim,
	size resource.Quantity,
	cause error,
) error {
	if !csiplugin.IsFinal(cause) {
		return nil
	}

	failed := v1.PersistentVolumeClaimCondition{
		Type:               v1.PersistentVolumeClaimNodeResizeError,
		Status:             v1.ConditionTrue,
		LastTransitionTime: metav1.Now(),
		Message:            fmt.Sprintf("failed to expand pvc with %v", cause),
	}
	change := map[string]any{
		"conditions": append(others(claim, v1.PersistentVolumeClaimNodeResizeError), failed),
	}
	if isInfeasible(cause) || hasFailed(claim) && asksForAnother(claim, size) {
		change["allocatedResourceStatuses"] = storageIs(v1.PersistentVolumeClaimNodeResizeInfeasible)
	}

	_, err := s.patch(ctx, claim, change)
	return err
}

// hasFailed reports whether an attempt of a node to grow the claim has failed.
func hasFailed(claim *v1.PersistentVolumeClaim) bool {
	return slices.ContainsFunc(claim.Status.Conditions, func(c v1.PersistentVolumeClaimCondition) bool {
		return c.Type == v1.PersistentVolumeClaimNodeResizeError
	})
}

// asksForAnother reports whether the claim has been edited since a size was asked for. The size of a volume
// that no resizer serves is asked for by an administrator, in the PersistentVolume alone.
func asksForAnother(claim *v1.PersistentVolumeClaim, size resource.Quantity) bool {
	if _, served := claim.Status.AllocatedResources[v1.ResourceStorage]; !served {
		return false
	}
	wanted := claim.Spec.Resources.Requests[v1.ResourceStorage]
	return wanted.Cmp(size) != 0
}

// isInfeasible reports whether a driver has called a size impossible, by kubelet's codes.
func isInfeasible(err error) bool {
	switch grpcstatus.Code(err) {
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound:
		return true
	}
	return false
}

// Grown writes the new capacity and removes the conditions of the resize.
func (s Status) Grown(
	ctx context.Context,
	claim *v1.PersistentVolumeClaim,
	size resource.Quantity,
) error {
	_, err := s.patch(ctx, claim, map[string]any{
		"capacity":                  map[string]string{string(v1.ResourceStorage): size.String()},
		"allocatedResourceStatuses": storageIs(nil),
		"conditions": others(
			claim,
			v1.PersistentVolumeClaimFileSystemResizePending,
			v1.PersistentVolumeClaimResizing,
			v1.PersistentVolumeClaimControllerResizeError,
			v1.PersistentVolumeClaimNodeResizeError,
		),
	})
	return err
}

// storageIs is the status of the storage in a patch, nil for none.
func storageIs(state any) map[string]any { return map[string]any{string(v1.ResourceStorage): state} }

// others are the conditions of a claim of other types than these.
func others(
	claim *v1.PersistentVolumeClaim,
	types ...v1.PersistentVolumeClaimConditionType,
) []v1.PersistentVolumeClaimCondition {
	kept := slices.Clone(claim.Status.Conditions)
	kept = slices.DeleteFunc(kept, func(c v1.PersistentVolumeClaimCondition) bool {
		return slices.Contains(types, c.Type)
	})
	return append([]v1.PersistentVolumeClaimCondition{}, kept...)
}

// patch changes the status of the claim as it was read.
func (s Status) patch(
	ctx context.Context,
	claim *v1.PersistentVolumeClaim,
	change map[string]any,
) (*v1.PersistentVolumeClaim, error) {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": claim.UID, "resourceVersion": claim.ResourceVersion},
		"status":   change,
	})
	if err != nil {
		return nil, err
	}

	changed, err := s.Claims.Patch(ctx, claim.Namespace, claim.Name, types.MergePatchType, patch, "status")
	if err != nil {
		return nil, fmt.Errorf("status of persistentvolumeclaim %s/%s: %w", claim.Namespace, claim.Name, err)
	}

	return changed, nil
}

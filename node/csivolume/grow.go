package csivolume

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
)

// Claims records in the API that a claim has grown (ClaimStatus).
type Claims interface {
	// Grown writes the size that the pod has now into the status of the claim.
	Grown(ctx context.Context, claim *v1.PersistentVolumeClaim, size resource.Quantity) error
}

// grow makes the file system or device on this node as large as the volume is by now. Drivers without
// EXPAND_VOLUME do all of it in their controller.
func (m *Mounter) grow(ctx context.Context, c *call) error {
	if c.Claim == nil || c.ReadOnly || !c.driver.Can(csi.NodeServiceCapability_RPC_EXPAND_VOLUME) {
		return nil
	}

	// The controller makes the volume larger, the node's part is done when the claim shows that size, too.
	size := c.PV.Spec.Capacity[v1.ResourceStorage]
	have := c.Claim.Status.Capacity[v1.ResourceStorage]
	if size.Cmp(have) <= 0 {
		return nil
	}

	secrets, err := m.secrets(ctx, c.PV.Spec.CSI.NodeExpandSecretRef)
	if err != nil {
		return err
	}

	request := &csi.NodeExpandVolumeRequest{
		VolumeId:         c.handle,
		VolumePath:       c.place.target,
		CapacityRange:    &csi.CapacityRange{RequiredBytes: size.Value()},
		VolumeCapability: c.capability(),
		Secrets:          secrets,
	}
	if c.driver.Can(csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) {
		request.StagingTargetPath = c.place.staging
	}

	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()

	if _, err := c.driver.Node.NodeExpandVolume(ctx, request); err != nil {
		return fmt.Errorf("NodeExpandVolume of %s: %w", c.handle, err)
	}

	if m.cfg.Claims == nil {
		return nil
	}

	return m.cfg.Claims.Grown(ctx, c.Claim, size)
}

// ClaimStatus writes sizes into the claims of a cluster.
type ClaimStatus struct {
	Claims kube.Objects[v1.PersistentVolumeClaim]
}

// Grown writes the new capacity and removes the conditions that asked for the resize. It fails on a conflict
// when the claim has been changed since it was read; the next Setup does it again.
func (s ClaimStatus) Grown(
	ctx context.Context,
	claim *v1.PersistentVolumeClaim,
	size resource.Quantity,
) error {
	conditions := []v1.PersistentVolumeClaimCondition{}
	for _, c := range claim.Status.Conditions {
		if c.Type != v1.PersistentVolumeClaimFileSystemResizePending &&
			c.Type != v1.PersistentVolumeClaimResizing {
			conditions = append(conditions, c)
		}
	}

	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": claim.UID, "resourceVersion": claim.ResourceVersion},
		"status": map[string]any{
			"capacity":                  map[string]string{string(v1.ResourceStorage): size.String()},
			"conditions":                conditions,
			"allocatedResourceStatuses": map[string]any{string(v1.ResourceStorage): nil},
		},
	})
	if err != nil {
		return err
	}

	_, err = s.Claims.Patch(ctx, claim.Namespace, claim.Name, types.MergePatchType, patch, "status")
	if err != nil {
		return fmt.Errorf("note size of persistentvolumeclaim %s/%s: %w", claim.Namespace, claim.Name, err)
	}

	return nil
}

package csivolume

import (
	"context"
	"errors"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// grow makes the file system or device on this node as large as the volume is by now. Drivers without
// EXPAND_VOLUME do all of it in their controller.
func (m *Mounter) grow(ctx context.Context, c *call) error {
	if c.Claim == nil || c.ReadOnly || !c.driver.Can(csi.NodeServiceCapability_RPC_EXPAND_VOLUME) {
		return nil
	}

	// The controller makes the volume larger, the node's part is done when the claim shows that size, too.
	// What the driver has called infeasible waits for another size (KEP-1790).
	size := c.PV.Spec.Capacity[v1.ResourceStorage]
	have := c.Claim.Status.Capacity[v1.ResourceStorage]
	if size.Cmp(have) <= 0 || growth(c.Claim) == v1.PersistentVolumeClaimNodeResizeInfeasible {
		return nil
	}

	if m.cfg.Claims == nil {
		return m.expand(ctx, c, size)
	}

	claim, err := m.cfg.Claims.Growing(ctx, c.Claim)
	if err != nil {
		return err
	}
	if err := m.expand(ctx, c, size); err != nil {
		return errors.Join(err, m.cfg.Claims.NotGrown(ctx, claim, size, err))
	}

	return m.cfg.Claims.Grown(ctx, claim, size)
}

// expand has the driver do the node's part.
func (m *Mounter) expand(ctx context.Context, c *call, size resource.Quantity) error {
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
		request.StagingTargetPath = c.place.staging.Path
	}

	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()

	if _, err := c.driver.Node.NodeExpandVolume(ctx, request); err != nil {
		return fmt.Errorf("NodeExpandVolume of %s: %w", c.handle, err)
	}

	return nil
}

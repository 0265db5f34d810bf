package csivolume

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/growth"
)

// grow makes the file system or device on this node as large as the volume is by now. Drivers without
// EXPAND_VOLUME do all of it in their controller.
func (m *Mounter) grow(ctx context.Context, c *call) error {
	if c.Claim == nil || c.ReadOnly || !c.driver.Can(csi.NodeServiceCapability_RPC_EXPAND_VOLUME) {
		return nil
	}

	expand := func(ctx context.Context, size resource.Quantity) error { return m.expand(ctx, c, size) }
	return growth.Grow(ctx, m.cfg.Claims, c.Claim, c.PV, expand)
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

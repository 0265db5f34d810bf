package csivolume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/csiplugin"
	"github.com/trivet-node/trivet/node/csivolume/staging"
	"github.com/trivet-node/trivet/node/volume"
)

// lockWait is how long one Setup waits for another one of the same volume, or for the end of its unstaging:
// it holds the pod's volumes, and the pod may be deleted meanwhile. The caller tries again.
const lockWait = 10 * time.Second

// errBusy: the driver has not answered an earlier call.
var errBusy = errors.New("it is still being staged or unstaged")

// stage makes the volume available on the node, once for all pods. The pod's own record is written first: as
// long as it exists, nobody unstages the volume.
func (m *Mounter) stage(ctx context.Context, c *call) error {
	unlock, err := lock(ctx, m.unstager, c.place.staging)
	if err != nil {
		return err
	}
	defer unlock()

	if err := m.checkSinglePod(c); err != nil {
		return err
	}
	if err := c.place.begin(m.cfg.Node); err != nil {
		return err
	}

	if c.Inline != nil || !c.driver.Can(csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) {
		return nil
	}
	if c.attaches() {
		m.cfg.InUse.Hold(c.driver.Name, c.handle, c.place.staging.Path)
	}
	if done, err := c.place.staging.Staged(m.boot); done || err != nil {
		return err
	}

	return m.callStage(ctx, c)
}

// callStage has the driver stage the volume. If it refuses, the volume is not staged, unless an earlier call
// may have staged it.
func (m *Mounter) callStage(ctx context.Context, c *call) error {
	secrets, err := m.secrets(ctx, c.PV.Spec.CSI.NodeStageSecretRef)
	if err != nil {
		return err
	}

	earlier, err := c.place.staging.MayBeStaged()
	if err != nil {
		return err
	}
	if err := c.place.staging.Begin(); err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()

	_, err = c.driver.Node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId:          c.handle,
		PublishContext:    c.context,
		StagingTargetPath: c.place.staging.Path,
		VolumeCapability:  c.capability(),
		Secrets:           secrets,
		VolumeContext:     c.PV.Spec.CSI.VolumeAttributes,
	})
	if err != nil {
		err = fmt.Errorf("MountDevice: NodeStageVolume of %s: %w", c.handle, err)
		if earlier || !csiplugin.IsFinal(err) {
			return err
		}
		if left := c.place.staging.End(); left != nil {
			return errors.Join(err, left)
		}

		m.cfg.InUse.Release(c.place.staging.Path)
		return err
	}

	return c.place.staging.Finish(m.boot)
}

// checkSinglePod refuses a volume that only one pod may use (ReadWriteOncePod) if another pod of this node
// has it, whether its driver cares or not. The scheduler does so, too, but not every pod is scheduled. It
// needs the lock of the staging.
func (m *Mounter) checkSinglePod(c *call) error {
	if c.PV == nil || len(c.PV.Spec.AccessModes) != 1 || c.PV.Spec.AccessModes[0] != v1.ReadWriteOncePod {
		return nil
	}

	used, err := m.dirs.usedBeside(c.place.staging, &c.place)
	if err != nil || !used {
		return err
	}

	reason := "FailedMount"
	if c.Block {
		reason = "FailedMapVolume"
	}

	inUse := errors.New("volume uses the ReadWriteOncePod access mode and is already in use by another pod")
	return volume.Failed(c.PV.Name, reason, inUse)
}

// lock waits for the end of what goes on with a volume's staging.
func lock(ctx context.Context, u *staging.Unstager, p staging.Place) (unlock func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, errBusy)
	defer cancel()

	unlock, err = u.Lock(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("stage volume %s: %w", p.Handle, err)
	}
	return unlock, nil
}

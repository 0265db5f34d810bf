package csivolume

import (
	"context"
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/trivet-node/trivet/node/fsgroup"
	"github.com/trivet-node/trivet/node/podspec"
)

// giveToGroup changes the owner as fsGroupPolicy says, unless the driver has done so (VOLUME_MOUNT_GROUP).
// What the pod can only read is left as it is: it cannot be changed, and where it could, other pods would see
// it change.
func (m *Mounter) giveToGroup(ctx context.Context, c *call) error {
	if c.FSGroup == nil || c.Block || c.ReadOnly ||
		c.driver.Can(csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP) ||
		!c.wantsGroup() {
		return nil
	}

	var fs unix.Statfs_t
	if err := unix.Statfs(c.place.target, &fs); err != nil {
		return fmt.Errorf("stat volume %s: %w", c.place.target, err)
	}

	// It may be read-only by its mount options, or by its driver.
	if fs.Flags&unix.ST_RDONLY != 0 {
		return nil
	}

	onMismatch := podspec.FSGroupOnRootMismatch(c.Pod)
	return fsgroup.Apply(ctx, c.place.target, *c.FSGroup, false, onMismatch)
}

func (c *call) wantsGroup() bool {
	switch *c.policy.FSGroupPolicy {
	case storagev1.NoneFSGroupPolicy:
		return false
	case storagev1.FileFSGroupPolicy:
		return true
	}

	if c.PV == nil || c.PV.Spec.CSI.FSType == "" {
		return false
	}

	modes := c.PV.Spec.AccessModes
	return slices.Contains(modes, v1.ReadWriteOnce) || slices.Contains(modes, v1.ReadWriteOncePod)
}

package csivolume

import (
	"context"
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/trivet-node/trivet/internal/fsgroup"
	"github.com/trivet-node/trivet/node/podspec"
)

// giveToGroup gives the volume to the pod's fsGroup as the driver's fsGroupPolicy says, unless the driver has
// done so (VOLUME_MOUNT_GROUP). A volume that the pod can only read is left as it is, because other pods
// would see it change.
func (m *Mounter) giveToGroup(ctx context.Context, c *call) error {
	if c.FSGroup == nil || c.Block || c.ReadOnly || !mayHaveGroup(*c.policy.FSGroupPolicy, c.PV) {
		return nil
	}
	if c.driver.Can(csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP) {
		return nil
	}

	var fs unix.Statfs_t
	if err := unix.Statfs(c.place.target, &fs); err != nil {
		return fmt.Errorf("stat volume %s: %w", c.place.target, err)
	}

	// The mount options or the driver may have made it read-only.
	if fs.Flags&unix.ST_RDONLY != 0 {
		return nil
	}

	onMismatch := podspec.FSGroupOnRootMismatch(c.Pod)
	return fsgroup.Apply(ctx, c.place.target, *c.FSGroup, false, onMismatch)
}

// mayHaveGroup reports whether the policy of a driver lets the fsGroup have a volume; pv is nil for an inline
// one. The default policy, ReadWriteOnceWithFSType, infers from file system and access modes that only pods
// of this node use the volume.
func mayHaveGroup(policy storagev1.FSGroupPolicy, pv *v1.PersistentVolume) bool {
	switch policy {
	case storagev1.NoneFSGroupPolicy:
		return false
	case storagev1.FileFSGroupPolicy:
		return true
	}

	if pv == nil || pv.Spec.CSI.FSType == "" {
		return false
	}

	modes := pv.Spec.AccessModes
	return slices.Contains(modes, v1.ReadWriteOnce) || slices.Contains(modes, v1.ReadWriteOncePod)
}

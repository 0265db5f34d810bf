package volume

import (
	"context"
	"fmt"
	"io/fs"
	"os"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/node/fsgroup"
	"github.com/trivet-node/trivet/node/podspec"
)

const localPlugin = "kubernetes.io~local-volume"

// local serves a local persistent volume: a block device as it is, or a directory of the node, bind-mounted
// into the pod's directory. It returns the path.
func (m *Mounter) local(ctx context.Context, r Request, src *v1.LocalVolumeSource) (string, error) {
	info, err := os.Stat(src.Path)
	switch {
	case err != nil:
		return "", fmt.Errorf("local volume %q: %w", r.PV.Name, err)
	case r.Block && info.Mode()&fs.ModeDevice == 0:
		return "", fmt.Errorf("local volume %q: %s is not a block device", r.PV.Name, src.Path)
	case r.Block:
		return src.Path, nil
	case !info.IsDir():
		return "", fmt.Errorf("local volume %q: %s is not a directory (formatting a device is not supported)",
			r.PV.Name, src.Path)
	}

	dir := m.dirs.volume(r.Pod.UID, localPlugin, r.PV.Name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("make %s: %w", dir, err)
	}

	mounted, err := mount.Mounted(dir)
	if mounted || err != nil {
		return dir, err
	}
	if err := mount.Bind(src.Path, dir, false, r.ReadOnly); err != nil {
		return "", err
	}

	if r.FSGroup != nil && !r.ReadOnly {
		return dir, fsgroup.Apply(ctx, dir, *r.FSGroup, false, podspec.FSGroupOnRootMismatch(r.Pod))
	}

	return dir, nil
}

package volume

import (
	"context"

	"github.com/trivet-node/trivet/internal/fsgroup"
	"github.com/trivet-node/trivet/node/localvolume"
	"github.com/trivet-node/trivet/node/podspec"
)

// local serves a local persistent volume: a block device as it is, or the file system of a directory or of a
// device, mounted in the pod's directory. It returns the path.
func (m *Mounter) local(ctx context.Context, r Request) (string, error) {
	v := localvolume.Of(r.PV, r.ReadOnly)
	if r.Block {
		return localvolume.Device(v)
	}

	dir := m.dirs.volume(r.Pod.UID, localvolume.Plugin, r.PV.Name)
	if err := m.locals.Mount(ctx, v, dir); err != nil {
		return "", err
	}

	if r.FSGroup != nil && !r.ReadOnly {
		return dir, fsgroup.Apply(ctx, dir, *r.FSGroup, false, podspec.FSGroupOnRootMismatch(r.Pod))
	}

	return dir, nil
}

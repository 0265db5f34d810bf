package volume

import (
	"context"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/growth"
	"github.com/trivet-node/trivet/node/localvolume"
	"github.com/trivet-node/trivet/node/podspec"
)

// local serves a local persistent volume: a block device as it is, or the file system of a directory or of a
// device, mounted in the pod's directory and as large as the device has become. A block device is as large as
// it is without more.
func (m *Mounter) local(ctx context.Context, r Request) (Provided, error) {
	v := localvolume.Of(r.PV, r.ReadOnly)
	v.FSGroup = r.FSGroup
	v.OnRootMismatch = podspec.FSGroupOnRootMismatch(r.Pod)

	provided := Provided{Revisit: !r.ReadOnly}
	expand := func(ctx context.Context, _ resource.Quantity) error { return m.locals.Grow(ctx, v) }
	var err error
	if r.Block {
		provided.Path, err = localvolume.Device(v)
		expand = func(context.Context, resource.Quantity) error { return nil }
	} else {
		provided.Path = m.dirs.volume(r.Pod.UID, localvolume.Plugin, r.PV.Name)
		err = m.locals.Mount(ctx, v, provided.Path)
	}
	if err != nil {
		return Provided{}, err
	}

	if r.ReadOnly {
		return provided, nil
	}
	if err := growth.Grow(ctx, m.cfg.Claims, r.Claim, r.PV, expand); err != nil {
		return provided, Failed(r.Name, ResizeFailed, err)
	}

	return provided, nil
}

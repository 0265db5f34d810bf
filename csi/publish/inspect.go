package publish

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/trivet-node/trivet/csi/volume"
)

// Stats returns how much is used of the volume that is seen at path. kubelet asks about a raw block volume at
// a path of its own, to which it has bound the device from where that is published.
func (p *Publisher) Stats(id, path string) (volume.Volume, Usage, error) {
	v, err := p.volumes.Get(id)
	if err != nil {
		return volume.Volume{}, Usage{}, err
	}
	if v.Damage != nil {
		return volume.Volume{}, Usage{}, fmt.Errorf("volume %s: %w", id, v.Damage)
	}
	if !p.isSeen(v, path) {
		return volume.Volume{}, Usage{}, notThere(id, path)
	}
	if v.Access == volume.Block {
		return v, Usage{Total: v.Size}, nil
	}

	root, err := p.openMounted(path)
	if errors.Is(err, errNotMounted) || errors.Is(err, os.ErrNotExist) {
		err = notThere(id, path)
	}
	if err != nil {
		return volume.Volume{}, Usage{}, err
	}
	defer root.Close()

	usage, err := p.backends[v.Backend].Usage(v.Spec, root)
	return v, usage, err
}

func notThere(id, path string) error {
	return fmt.Errorf("%w: %s is not on %s", volume.ErrNotFound, id, path)
}

// isSeen reports whether a volume in use was put on path, or is a device that can be seen there.
func (p *Publisher) isSeen(v volume.Volume, path string) bool {
	st, staged := p.stagings.get(v.ID)
	if !staged {
		return false
	}
	known := path == st.Path || slices.Contains(st.Targets, path)
	return known || v.Access == volume.Block && p.isDevice(v, path)
}

// isDevice reports whether path shows the device of a staged raw block volume.
func (p *Publisher) isDevice(v volume.Volume, path string) bool {
	point, err := p.targets.Point(path, false)
	if err != nil {
		return false
	}
	defer point.Close()

	state, err := point.State()
	if err != nil || !state.Mounted {
		return false
	}

	dev, err := p.device(v)
	if err != nil {
		return false
	}
	defer dev.Close()

	same, err := shows(state, dev, volume.Block)
	return same && err == nil
}

// GrowsStaged reports whether GrowStaged has to follow when a volume in use has grown.
func (p *Publisher) GrowsStaged(v volume.Volume) bool {
	_, ok := p.growerOf(v)
	return ok
}

// GrowStaged finishes the growth of a staged volume: device and file system take the new space.
func (p *Publisher) GrowStaged(ctx context.Context, id string) (volume.Volume, error) {
	v, unlock, err := p.volumes.Acquire(ctx, id)
	if err != nil {
		return volume.Volume{}, err
	}
	defer unlock()

	st, ok := p.stagings.get(id)
	if !ok {
		return volume.Volume{}, fmt.Errorf("%w: %s", volume.ErrNotStaged, id)
	}

	grower, ok := p.growerOf(v)
	if !ok {
		return v, nil
	}

	if err := p.grow(grower, v, st.Path); err != nil {
		return volume.Volume{}, fmt.Errorf("grow volume %s: %w", id, err)
	}

	return v, nil
}

// growerOf returns the backend of a volume if that does not grow by itself.
func (p *Publisher) growerOf(v volume.Volume) (Grower, bool) {
	grower, ok := p.backends[v.Backend].(Grower)
	return grower, ok && grower.GrowsStaged(v.Spec)
}

func (p *Publisher) grow(grower Grower, v volume.Volume, path string) error {
	if v.Access == volume.Block {
		return grower.GrowStaged(v.Spec, nil)
	}

	root, err := p.openMounted(path)
	if errors.Is(err, errNotMounted) {
		return notThere(v.ID, path)
	}
	if err != nil {
		return err
	}
	defer root.Close()

	return grower.GrowStaged(v.Spec, root)
}

package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
)

// Stage makes a volume ready for use on this node: its file system is mounted on path, or its device
// attached. Pods get it by Publish. Repeating it is success; another path is ErrInUse.
func (p *Publisher) Stage(ctx context.Context, id, path string, u Use) error {
	v, unlock, err := p.acquire(ctx, id, u)
	if err != nil {
		return err
	}
	defer unlock()

	st, staged := p.stagings.get(id)
	if staged {
		if err := st.checkPath(id, path); err != nil {
			return err
		}
	}

	point, err := p.targets.Point(path, true)
	if err != nil {
		return err
	}
	defer point.Close()

	// A repeated call finds the mount of the first.
	state, err := point.State()
	if err != nil {
		return err
	}
	if staged && state.Mounted && v.Access == volume.Filesystem {
		whole, err := isWhole(p.backends[v.Backend], v, point, state, u)
		if err != nil {
			return err
		}
		if whole {
			return p.Limits.apply(v, st)
		}
	}

	// The record comes before the mount or the device, so that none is left that no record leads to.
	if !staged {
		st = staging{Path: path}
		if err := p.begin(id, st); err != nil {
			return err
		}
	}

	// No pod has the volume before its limits are in force.
	err = p.attach(v, point, state, u)
	if err == nil {
		err = p.Limits.apply(v, st)
	}
	if err == nil {
		return nil
	}

	err = fmt.Errorf("stage volume %s: %w", id, err)
	if staged {
		// Pods may be using what was there before.
		return err
	}

	return errors.Join(err, p.undo(v, point))
}

// begin records that a volume is in use, and end that it is not any more.
func (p *Publisher) begin(id string, st staging) error {
	if err := p.stagings.put(id, st); err != nil {
		return err
	}
	p.hold(id, st)
	return nil
}

func (p *Publisher) end(id string) error {
	if err := p.stagings.remove(id); err != nil {
		return err
	}
	p.volumes.Release(id)
	return nil
}

func (p *Publisher) attach(v volume.Volume, point *target.Point, state target.State, u Use) error {
	if v.Access == volume.Block {
		dev, err := p.device(v)
		if err != nil {
			return err
		}

		return dev.Close()
	}

	// What is mounted there without a record is of unknown origin.
	if state.Mounted {
		if err := point.Clear(); err != nil {
			return err
		}
	}

	tree, err := p.backends[v.Backend].Mount(v.Spec, target.ParseOptions(u.Options))
	if err != nil {
		return err
	}
	defer tree.Close()

	if err := point.MakeDir(); err != nil {
		return err
	}
	if v.Encryption == "" {
		return tree.Attach(point)
	}

	encrypted, err := newUnlocking(p.backends[v.Backend], v, u)
	if err != nil {
		return err
	}
	return encrypted.attach(tree, point)
}

// undo undoes a Stage as far as it got.
func (p *Publisher) undo(v volume.Volume, point *target.Point) error {
	// The next volume that has the device must not have the limits.
	st, _ := p.stagings.get(v.ID)
	if err := p.Limits.lift(st); err != nil {
		return err
	}

	if v.Access == volume.Block {
		return errors.Join(p.detach(v), p.end(v.ID))
	}
	return errors.Join(clearing(p.backends[v.Backend], v)(point), p.end(v.ID))
}

// Unstage undoes Stage. A volume that is not staged, or not on this path, is success.
func (p *Publisher) Unstage(ctx context.Context, id, path string) error {
	unlock, err := p.volumes.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	st, staged := p.stagings.get(id)
	if staged && st.Path != path {
		return nil
	}

	// A pod that uses an encrypted volume would lose what it has not opened.
	v, unknown := p.volumes.Get(id)
	if v.Encryption != "" {
		if i := slices.IndexFunc(st.Targets, p.isMounted); i >= 0 {
			return fmt.Errorf("%w: %s is published on %s", volume.ErrInUse, id, st.Targets[i])
		}
	}

	if err := p.Limits.lift(st); err != nil {
		return fmt.Errorf("unstage volume %s: %w", id, err)
	}

	// Even of a volume that is not known any more no mount may be left; of a raw block volume nothing is
	// mounted, and its device may be attached all the same.
	if err := p.clear(path, clearing(p.backends[v.Backend], v)); err != nil {
		return fmt.Errorf("unstage volume %s: %w", id, err)
	}

	if unknown == nil && v.Access == volume.Block {
		if err := p.detach(v); err != nil {
			return fmt.Errorf("unstage volume %s: %w", id, err)
		}
	}

	if !staged {
		return nil
	}

	return p.end(id)
}

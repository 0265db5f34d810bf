package publish

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/fsgroup"
)

// Publish puts a staged volume on a target, for one pod. Repeating it is success, with another access ("ro",
// "rw") ErrConflict. A second target of a volume for a single writer is ErrInUse.
func (p *Publisher) Publish(ctx context.Context, id, path string, u Use) error {
	v, unlock, err := p.acquire(ctx, id, u)
	if err != nil {
		return err
	}
	defer unlock()

	before, ok := p.stagings.get(id)
	if !ok {
		return fmt.Errorf("%w: %s", volume.ErrNotStaged, id)
	}

	after, err := before.with(id, path, u.SingleWriter)
	if err != nil {
		return err
	}

	point, err := p.targets.Point(path, true)
	if err != nil {
		return err
	}
	defer point.Close()

	// The record comes before the mount, so that a volume with a single writer never has two.
	if len(after.Targets) > len(before.Targets) {
		if err := p.stagings.put(id, after); err != nil {
			return err
		}
	}

	err = p.show(ctx, v, before.Path, point, u)
	if err == nil {
		return p.Limits.apply(v, after)
	}

	err = fmt.Errorf("publish volume %s: %w", id, err)

	// A target without a mount would keep others from a single writer's volume.
	if state, unknown := point.State(); unknown != nil || state.Mounted {
		return err
	}

	return errors.Join(err, p.stagings.put(id, before))
}

// show makes a target show what is staged.
func (p *Publisher) show(
	ctx context.Context,
	v volume.Volume,
	stagingPath string,
	point *target.Point,
	u Use,
) error {
	source, err := p.source(v, stagingPath)
	if err != nil {
		return err
	}
	defer source.Close()

	options := target.ParseOptions(u.Options)
	options.ReadOnly = options.ReadOnly || u.ReadOnly
	if err := giveToGroup(ctx, v, source, options.ReadOnly, u.Group); err != nil {
		return err
	}

	state, err := point.State()
	if err != nil {
		return err
	}
	if state.Mounted {
		return checkShown(point, state, source, v.Access, options.ReadOnly)
	}

	// The mount is made apart from the target and attached to it with all its options: pods never see it
	// without.
	makePoint := point.MakeDir
	if v.Access == volume.Block {
		makePoint = point.MakeFile
	}
	if err := makePoint(); err != nil {
		return err
	}

	tree, err := target.Clone(source, options)
	if err != nil {
		return err
	}
	defer tree.Close()

	return tree.Attach(point)
}

// giveToGroup has the files of a volume belong to a group before a pod sees them. It looks at the root
// directory, which is changed last: if that belongs to the group so does everything else, and what is made in
// it will (setgid), so that only a change of the group takes time. Others see that, too, if they use the
// volume; one who can only read changes nothing.
func giveToGroup(ctx context.Context, v volume.Volume, root *os.File, readOnly bool, group *int64) error {
	if group == nil || readOnly || v.Access == volume.Block {
		return nil
	}
	return fsgroup.ApplyTo(ctx, root, *group, false, true)
}

// source opens what is shown to pods: the root directory where it is staged, or the device.
func (p *Publisher) source(v volume.Volume, stagingPath string) (*os.File, error) {
	if v.Access == volume.Block {
		return p.device(v)
	}
	root, err := p.openMounted(stagingPath)
	if errors.Is(err, errNotMounted) {
		return nil, fmt.Errorf("%w: %w", volume.ErrNotStaged, err)
	}
	if err != nil || v.Encryption == "" {
		return root, err
	}
	return checkEncrypted(v, root)
}

var errNotMounted = errors.New("nothing is mounted there")

// openMounted opens the directory that is mounted on path.
func (p *Publisher) openMounted(path string) (*os.File, error) {
	point, err := p.targets.Point(path, false)
	if err != nil {
		return nil, err
	}
	defer point.Close()

	state, err := point.State()
	if err != nil {
		return nil, err
	}
	if !state.Mounted {
		return nil, fmt.Errorf("%s: %w", path, errNotMounted)
	}

	return point.Open()
}

// checkShown returns ErrConflict unless a mount shows source, read-only or not.
func checkShown(
	point *target.Point,
	state target.State,
	source *os.File,
	access volume.Access,
	readOnly bool,
) error {
	same, err := shows(state, source, access)
	switch {
	case err != nil:
		return err
	case !same:
		return fmt.Errorf("%w: something else is mounted on %s", volume.ErrConflict, point)
	case state.ReadOnly != readOnly:
		return fmt.Errorf("%w: it is on %s with read-only %t", volume.ErrConflict, point, state.ReadOnly)
	}
	return nil
}

// shows reports whether the mount with the given state shows the same directory or device as source.
func shows(state target.State, source *os.File, access volume.Access) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(source.Fd()), &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: source.Name(), Err: err}
	}
	if access == volume.Block {
		return state.Special == st.Rdev, nil
	}
	return state.Device == st.Dev && state.Inode == st.Ino, nil
}

// Unpublish undoes Publish: it unmounts the target and removes the directory or file that it was mounted on.
// What is not there any more is success.
func (p *Publisher) Unpublish(ctx context.Context, id, path string) error {
	unlock, err := p.volumes.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	if err := p.clear(path, (*target.Point).Remove); err != nil {
		return fmt.Errorf("unpublish volume %s: %w", id, err)
	}

	st, ok := p.stagings.get(id)
	if !ok || !slices.Contains(st.Targets, path) {
		return nil
	}

	return p.stagings.put(id, st.without(path))
}

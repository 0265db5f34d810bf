package podcgroup

import (
	"context"
	"fmt"
	"path"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/systemd"
	"github.com/trivet-node/trivet/node/unit"
)

// driver makes, limits and removes groups: by files, or, with systemd, as slices. Then the files are written
// as well: the limits hold at once, and in hierarchies that systemd does not know.
type driver struct {
	host    *cgroup.Host
	slices  *unit.Slices // nil where systemd does not run
	systemd bool
}

// ensure makes a group and limits it.
func (d driver) ensure(ctx context.Context, group string, limits cgroup.Limits) error {
	limits = d.asWritten(limits)
	if err := d.slice(ctx, group, limits); err != nil {
		return err
	}
	if err := d.host.Create(group); err != nil {
		return fmt.Errorf("cgroup %s: %w", group, err)
	}
	return d.host.Apply(group, limits)
}

// limit limits a group that is there.
func (d driver) limit(ctx context.Context, group string, limits cgroup.Limits) error {
	limits = d.asWritten(limits)
	if err := d.slice(ctx, group, limits); err != nil {
		return err
	}
	return d.host.Apply(group, limits)
}

// slice has systemd make and limit the slice of a group. Without systemd there is none.
func (d driver) slice(ctx context.Context, group string, limits cgroup.Limits) error {
	if !d.systemd {
		return nil
	}
	if d.slices == nil {
		return fmt.Errorf("cgroup %s: systemd does not run on this machine", group)
	}

	if err := d.slices.Ensure(ctx, path.Base(group), unit.Properties(limits, d.host.V2)); err != nil {
		return fmt.Errorf("cgroup %s: %w", group, err)
	}

	return nil
}

// asWritten returns the limits as they are written.
func (d driver) asWritten(limits cgroup.Limits) cgroup.Limits {
	if d.systemd {
		return unit.Rounded(limits)
	}
	return limits
}

// sliceOf returns the name of the slice whose group this is. A directory that is only named like a slice is
// not one.
func (d driver) sliceOf(group string) (name string, isSlice bool) {
	if d.slices == nil {
		return "", false
	}
	name = path.Base(group)
	at, err := systemd.SlicePath(name)
	return name, err == nil && at == group
}

// isUnit reports whether the group is a slice that systemd knows, which it may do longer than there is a
// directory: an earlier removal was cut off, or a unit that has failed is in the slice.
func (d driver) isUnit(group string) bool {
	name, isSlice := d.sliceOf(group)
	return isSlice && systemd.Transient(name)
}

// remove removes a group in which nothing runs.
func (d driver) remove(ctx context.Context, group string) error {
	if name, isSlice := d.sliceOf(group); isSlice {
		if err := d.slices.Stop(ctx, name); err != nil {
			return err
		}
	}
	return d.host.Remove(ctx, group)
}

// removeIdle removes a group if nothing runs in it.
func (d driver) removeIdle(ctx context.Context, group string) error {
	if !d.host.Exists(group) && !d.isUnit(group) {
		return nil
	}
	pids, err := d.host.Procs(group)
	if err != nil || len(pids) > 0 {
		return err
	}
	return d.remove(ctx, group)
}

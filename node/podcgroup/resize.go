package podcgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"reflect"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/cgroup"
)

// Widen raises the limits of the pod's group to those that the pod has, and lowers none: call it before the
// limits of containers are changed, as the kernel gives a container no more than its pod has, and Narrow
// after it. A group that is not there is made.
func (t *Tree) Widen(ctx context.Context, pod *v1.Pod) error {
	if err := check(pod.UID); err != nil {
		return err
	}
	limits, err := groupLimits(t.cfg, pod)
	if err != nil {
		return err
	}

	group := t.group(pod)
	more, err := t.cfg.Host.Above(group, t.groups.asWritten(limits))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return t.groups.ensure(ctx, group, limits)
	case err != nil:
		return fmt.Errorf("widen: %w", err)
	case reflect.ValueOf(more).IsZero():
		return nil
	}

	return t.groups.limit(ctx, group, more)
}

// Narrow gives the pod's group, which is there, the limits that the pod has.
func (t *Tree) Narrow(ctx context.Context, pod *v1.Pod) error { return t.set(ctx, pod, t.groups.limit) }

// Memory is what the group of a pod uses and may use, in bytes.
type Memory struct {
	// Used is with the page cache: what the kernel compares with the limit.
	Used int64

	// Limit is the one that the group has, -1 for none, and Wanted that of the pod's specification, 0 for
	// none.
	Limit  int64
	Wanted int64
}

// Memory returns the memory of the pod's group. It is an error that the pod has no group (yet).
func (t *Tree) Memory(pod *v1.Pod) (Memory, error) {
	used, err := t.cfg.Host.MemoryUsage(t.group(pod))
	if err != nil {
		return Memory{}, err
	}
	limit, err := t.cfg.Host.MemoryLimit(t.group(pod))
	return Memory{Used: used, Limit: limit, Wanted: podLimits(pod).Memory}, err
}

// unbind takes the quotas of CPU from the groups below in which nothing runs. On cgroup v1 the kernel refuses
// a quota that is less than that of a group below, even if that one is not used any more.
func unbind(host *cgroup.Host, group string) error {
	children, err := host.Children(group)
	if err != nil {
		return err
	}

	for _, name := range children {
		child := path.Join(group, name)
		procs, err := host.Procs(child)
		if err != nil || len(procs) > 0 {
			continue
		}

		if err := unbind(host, child); err != nil {
			return err
		}

		err = host.Apply(child, cgroup.Limits{CPUQuota: -1})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}

	return nil
}

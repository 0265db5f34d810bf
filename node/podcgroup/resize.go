package podcgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"

	v1 "k8s.io/api/core/v1"
)

// Widen raises the limits of the pod's group to those that the pod has, and lowers none: call it before the
// limits of containers are changed, as the kernel gives a container no more than its pod has, and Ensure
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
	more, err := t.cfg.Host.Above(group, asWritten(t.cfg.Driver, limits))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return t.ensure(ctx, group, limits)
	case err != nil:
		return fmt.Errorf("widen: %w", err)
	case reflect.ValueOf(more).IsZero():
		return nil
	}

	return t.ensure(ctx, group, more)
}

// MemoryLimits returns how many bytes of memory the pod's group may use now, -1 for no limit, and how many it
// may use by the pod's specification, 0 for no limit.
func (t *Tree) MemoryLimits(pod *v1.Pod) (now, wanted int64, err error) {
	now, err = t.cfg.Host.MemoryLimit(t.group(pod))
	if errors.Is(err, fs.ErrNotExist) {
		now, err = -1, nil
	}
	return now, podLimits(pod).Memory, err
}

// MemoryUsage returns how many bytes of memory the pod uses, page cache included: what the kernel compares
// with its limit. It is an error that the pod has no group (yet).
func (t *Tree) MemoryUsage(pod *v1.Pod) (int64, error) {
	return t.cfg.Host.MemoryUsage(t.group(pod))
}

package publish

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/retry"
)

// Throttle limits what pods do with block devices.
type Throttle interface {
	// Apply has the pods, by their UIDs, held to the limits of a device, in place of earlier ones. A device
	// that is gone is success.
	Apply(device uint64, l volume.Limits, pods []string) error
}

// OwnDevice is a Backend that has volumes with a device of their own, whose limits are the volume's.
type OwnDevice interface {
	// Number returns the number of the device of a volume in use, 0 if it has none. last is the number that
	// it had before, 0 if that is not known.
	Number(id string, last uint64) (uint64, error)
}

// Limits are those of the volumes in use. They are safe for concurrent use.
type Limits struct {
	volumes  Volumes
	targets  *target.Root
	backends map[string]Backend
	throttle Throttle
	stagings *stagings
}

func newLimits(cfg Config, s *stagings) *Limits {
	x := &Limits{
		volumes:  cfg.Volumes,
		targets:  cfg.Targets,
		backends: cfg.Backends,
		throttle: cfg.Throttle,
		stagings: s,
	}
	if cfg.Throttle == nil {
		x.throttle = unlimitable{}
	}
	return x
}

// Check returns ErrInvalid where limits cannot be put in force on this node.
func (x *Limits) Check(l volume.Limits) error {
	if none, ok := x.throttle.(unlimitable); ok {
		return none.Apply(0, l, nil)
	}
	return nil
}

// unlimitable is the Throttle of a node without one.
type unlimitable struct{}

func (unlimitable) Apply(_ uint64, l volume.Limits, _ []string) error {
	if l == (volume.Limits{}) {
		return nil
	}
	return fmt.Errorf("%w: input and output cannot be limited on this node: it lacks the control groups",
		volume.ErrInvalid)
}

// Enforce puts the limits of a volume in force, if it is in use.
func (x *Limits) Enforce(ctx context.Context, id string) error {
	v, unlock, err := x.volumes.Acquire(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	if st, staged := x.stagings.get(id); staged {
		return x.apply(v, st)
	}
	return nil
}

// apply puts the limits of a volume that is staged in force, or takes away what is in force and should not
// be. Which device has limits is recorded before: the next volume that has the device must not have them.
func (x *Limits) apply(v volume.Volume, st staging) error {
	unlimited := v.Limits == volume.Limits{}
	if unlimited && st.Limited == 0 {
		return nil
	}

	number, err := x.numberOf(v, st.Limited)
	if err != nil {
		return fmt.Errorf("limit volume %s: %w", v.ID, err)
	}
	if number != st.Limited {
		if st, err = x.move(v.ID, st, number); err != nil {
			return err
		}
	}

	if err := x.throttle.Apply(number, v.Limits, x.podsOf(st.Targets)); err != nil {
		return fmt.Errorf("limit volume %s: %w", v.ID, err)
	}
	if !unlimited {
		return nil
	}

	st.Limited = 0
	return x.stagings.put(v.ID, st)
}

func (x *Limits) numberOf(v volume.Volume, last uint64) (uint64, error) {
	backend, ok := x.backends[v.Backend].(OwnDevice)
	if !ok {
		return 0, fmt.Errorf("%w: it has no device of its own", volume.ErrInvalid)
	}
	number, err := backend.Number(v.ID, last)
	if err == nil && number == 0 {
		err = errors.New("it is staged and has no device")
	}
	return number, err
}

// move records that another device has the limits from now on.
func (x *Limits) move(id string, st staging, number uint64) (staging, error) {
	if err := x.lift(st); err != nil {
		return st, fmt.Errorf("lift the limits of volume %s: %w", id, err)
	}
	st.Limited = number
	return st, x.stagings.put(id, st)
}

// lift takes away the limits of what is staged, before its device may become somebody else's.
func (x *Limits) lift(st staging) error {
	if st.Limited == 0 {
		return nil
	}
	return x.throttle.Apply(st.Limited, volume.Limits{}, x.podsOf(st.Targets))
}

// podsOf returns the UIDs of the pods whose targets these are: kubelet has a directory for each of its pods,
// and names the target of a raw block volume after the pod.
func (x *Limits) podsOf(targets []string) []string {
	var pods []string
	for _, path := range targets {
		if uid := PodOf(x.targets.Rel(path)); uid != "" {
			pods = append(pods, uid)
		}
	}
	return pods
}

// PodOf returns the UID of the pod that a target is of, by its path in kubelet's directory; "" if it is of
// none.
func PodOf(path string) string {
	if below, ok := strings.CutPrefix(path, "pods/"); ok {
		uid, _, _ := strings.Cut(below, "/")
		return uid
	}
	below, _ := strings.CutPrefix(path, "plugins/kubernetes.io/csi/volumeDevices/publish/")
	if below == path {
		return ""
	}
	_, uid, _ := strings.Cut(below, "/")
	return uid
}

const (
	// limitPeriod is for how long a container that has started, or a control group that was made again, may
	// be without the limits of its volumes.
	limitPeriod = time.Second

	// limitWait is how long a volume that is being worked on is waited for.
	limitWait = 100 * time.Millisecond
)

// Run keeps the limits of volumes in use in force until ctx ends. outcome is called with what comes of it for
// each volume that has limits; nil: they are in force.
func (x *Limits) Run(ctx context.Context, outcome func(id string, err error)) {
	for range retry.Every(ctx, limitPeriod) {
		for _, id := range x.stagings.ids() {
			x.keep(ctx, id, outcome)
		}
	}
}

// keep is Enforce for a volume that has limits. One that is being worked on is left for the next time.
func (x *Limits) keep(ctx context.Context, id string, outcome func(id string, err error)) {
	v, err := x.volumes.Get(id)
	st, staged := x.stagings.get(id)
	if err != nil || !staged || v.Limits == (volume.Limits{}) && st.Limited == 0 {
		return
	}

	limitCtx, cancel := context.WithTimeout(ctx, limitWait)
	defer cancel()

	err = x.Enforce(limitCtx, id)
	if limitCtx.Err() == nil {
		outcome(id, err)
	}
}

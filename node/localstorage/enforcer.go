package localstorage

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Period is the time between two looks at the pods that have limits, kubelet's.
const Period = 10 * time.Second

// Evictor ends pods (podworker.Worker).
type Evictor interface {
	// Evict ends a pod for exceeding a limit, in kubelet's words. It returns false if the pod ends already,
	// or may not be evicted because it is critical.
	Evict(uid types.UID, excess Excess) bool
}

// EnforcerConfig is what an Enforcer needs.
type EnforcerConfig struct {
	Meter *Meter
	Pods  func() []*v1.Pod

	// DedicatedImageFS reports whether images and writable layers have a file system of their own.
	DedicatedImageFS func(ctx context.Context) (bool, error)
	Evictor          Evictor
	Log              *slog.Logger
}

// Enforcer evicts the pods that exceed their limits of local storage. It is not safe for concurrent use.
type Enforcer struct {
	cfg EnforcerConfig

	// dedicated is what DedicatedImageFS has said, once it has: that does not change.
	dedicated *bool
}

// NewEnforcer returns an Enforcer.
func NewEnforcer(cfg EnforcerConfig) *Enforcer { return &Enforcer{cfg: cfg} }

// Run looks at the pods every Period until ctx ends.
func (e *Enforcer) Run(ctx context.Context) {
	ticker := time.NewTicker(Period)
	defer ticker.Stop()

	for {
		select {
		case <-ticker.C:
			if err := e.Look(ctx); err != nil && ctx.Err() == nil {
				e.cfg.Log.Warn("limits of local storage were not looked at", "err", err)
			}

		case <-ctx.Done():
			return
		}
	}
}

// Apart reports whether two directories are on different file systems.
func Apart(a, b string) (bool, error) {
	var first, second unix.Stat_t
	if err := unix.Stat(a, &first); err != nil {
		return false, fmt.Errorf("file system of %s: %w", a, err)
	}
	if err := unix.Stat(b, &second); err != nil {
		return false, fmt.Errorf("file system of %s: %w", b, err)
	}
	return first.Dev != second.Dev, nil
}

// lookTime bounds one look, in which the runtime is asked.
const lookTime = time.Minute

// Look evicts the pods that exceed a limit. It measures only those that have one.
func (e *Enforcer) Look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()

	var pods []*v1.Pod
	for _, pod := range e.cfg.Pods() {
		ended := pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
		if !ended && Limited(pod) {
			pods = append(pods, pod)
		}
	}

	if len(pods) == 0 {
		return nil
	}

	if e.dedicated == nil {
		dedicated, err := e.cfg.DedicatedImageFS(ctx)
		if err != nil {
			return err
		}

		e.dedicated = &dedicated
	}

	use, err := e.cfg.Meter.measure(ctx, pods)
	if err != nil {
		return err
	}

	for _, pod := range pods {
		excess, found := Check(pod, use[pod.UID], *e.dedicated)
		if found && e.cfg.Evictor.Evict(pod.UID, excess) {
			e.cfg.Log.Info("a pod exceeds a limit of local storage and is evicted",
				"pod", pod.Namespace+"/"+pod.Name, "limit", excess.Signal, "message", excess.Message)
		}
	}

	return nil
}

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

// Period is the time between two looks at all pods that have limits, kubelet's.
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

// Run looks at the pods as soon as they are known and then every Period until ctx ends, and meanwhile at
// those that are young.
func (e *Enforcer) Run(ctx context.Context) {
	ticker := time.NewTicker(youngPeriod)
	defer ticker.Stop()

	var looked time.Time
	for ctx.Err() == nil {
		now := time.Now()
		all := e.limited()
		pods := due(all, looked, now)
		if len(all) > 0 && now.Sub(looked) >= Period {
			looked = now
		}

		if err := e.look(ctx, pods); err != nil && ctx.Err() == nil {
			e.cfg.Log.Warn("limits of local storage were not looked at", "err", err)
		}

		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// A pod that writes too much often does so as soon as it has started.
const (
	youngPeriod = 2 * time.Second
	youth       = 30 * time.Second
)

// due are the pods to look at when all were looked at some time ago: those that are young before a Period is
// over, then all.
func due(all []*v1.Pod, looked, now time.Time) []*v1.Pod {
	if now.Sub(looked) >= Period {
		return all
	}

	var pods []*v1.Pod
	for _, pod := range all {
		if began := pod.Status.StartTime; began != nil && now.Sub(began.Time) < youth {
			pods = append(pods, pod)
		}
	}

	return pods
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
func (e *Enforcer) Look(ctx context.Context) error { return e.look(ctx, e.limited()) }

// limited are the pods that have a limit and have not ended.
func (e *Enforcer) limited() []*v1.Pod {
	var pods []*v1.Pod
	for _, pod := range e.cfg.Pods() {
		ended := pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
		if !ended && Limited(pod) {
			pods = append(pods, pod)
		}
	}
	return pods
}

func (e *Enforcer) look(ctx context.Context, pods []*v1.Pod) error {
	if len(pods) == 0 {
		return nil
	}

	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()

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

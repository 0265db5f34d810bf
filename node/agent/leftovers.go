package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/containergc"
	"github.com/trivet-node/trivet/node/imageaccess"
	"github.com/trivet-node/trivet/node/imagegc"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podcgroup"
	"github.com/trivet-node/trivet/node/podlog"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/podworker"
	"github.com/trivet-node/trivet/node/queue"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/userns"
	"github.com/trivet-node/trivet/node/volume"
)

// Leftovers are looked for at once when all pods are known, then periodically; sooner when something could
// not be removed yet, such as a volume whose driver has not registered again.
const (
	leftoversPeriod = time.Minute
	leftoversRetry  = 5 * time.Second
)

// leftovers removes what pods that do not exist any more have left: those of earlier lives of the agent, and
// those that went before they were looked at.
type leftovers struct {
	log     *slog.Logger
	runtime *runtime.Client
	ended   *containergc.Collector
	pods    *podsource.Source
	worker  *podworker.Worker
	volumes *volume.Mounter
	users   *userns.Ranges
	logs    podlog.Logs
	access  *imageaccess.Access
	tree    *podcgroup.Tree
	bound   func(context.Context) error // bounds all pods together
	looks   *queue.Queue
}

// run removes leftovers until ctx ends.
func (l leftovers) run(ctx context.Context) {
	select {
	case <-l.pods.Synced():
	case <-ctx.Done():
		return
	}

	// The page of static pods may not answer yet: its pods have not gone.
	for range retry.Every(ctx, leftoversRetry) {
		if l.pods.Complete() {
			break
		}
	}

	for ctx.Err() == nil {
		pause := leftoversPeriod
		if err := l.remove(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("what pods have left behind is not removed yet", "err", err)
			pause = leftoversRetry
		}

		_ = retry.Sleep(ctx, pause)
	}
}

// remove removes what can be removed now.
func (l leftovers) remove(ctx context.Context) error {
	inRuntime, err := l.runtime.Pods(ctx)
	if err != nil {
		return fmt.Errorf("pods of the container runtime: %w", err)
	}

	running := map[types.UID]bool{}
	for p := range inRuntime {
		uid := types.UID(p.UID)
		running[uid] = true
		if l.pods.Get(uid) == nil {
			l.looks.Look(uid, queue.OnlyInRuntime)
		}
	}

	keep := func(uid types.UID) bool {
		return running[uid] || l.pods.Get(uid) != nil || l.worker.Knows(uid)
	}
	return errors.Join(
		l.ended.Collect(ctx),
		l.tendCgroups(ctx, keep),
		l.tearDown(ctx, keep),
		l.logs.RemoveUnless(keep),
		l.forgetImages(ctx),
	)
}

// tearDown removes the directories of pods that are not to be kept. That of a pod with users of its own has
// the record of these, and stays with them while the pod has a group: there may be processes in it.
func (l leftovers) tearDown(ctx context.Context, keep func(types.UID) bool) error {
	occupied, err := l.tree.Pods()
	if err != nil {
		return err
	}

	mayRun := func(uid types.UID) bool { return keep(uid) || slices.Contains(occupied, uid) }
	keepDir := func(uid types.UID) bool { return keep(uid) || l.users.Has(uid) && mayRun(uid) }
	return errors.Join(l.volumes.Orphans(ctx, keepDir), l.users.ReleaseUnless(mayRun))
}

// tendCgroups removes the groups of pods that are not to be kept and of a driver that was in use before, and
// sets the limits of the groups that all pods are in again.
func (l leftovers) tendCgroups(ctx context.Context, keep func(types.UID) bool) error {
	uids, err := l.tree.Pods()
	if err != nil {
		return err
	}

	var errs []error
	for _, uid := range uids {
		if !keep(uid) {
			errs = append(errs, l.tree.Remove(ctx, uid))
		}
	}

	errs = append(errs, l.tree.Retire(ctx), l.bound(ctx), l.tree.Balance(ctx, l.pods.List()))
	return errors.Join(errs...)
}

// forgetImages forgets how images were pulled that have gone.
func (l leftovers) forgetImages(ctx context.Context) error {
	asked := time.Now()
	images, err := l.runtime.ListImages(ctx)
	if err != nil {
		return fmt.Errorf("images of the container runtime: %w", err)
	}
	return l.access.Reconcile(images, asked)
}

// newImageGC makes what removes images that no pod uses.
func newImageGC(s *surroundings, in podInputs) *imagegc.Collector {
	images := s.cfg.Images
	return imagegc.New(imagegc.Config{
		Policy: imagegc.Policy{
			HighPercent: images.HighPercent,
			LowPercent:  images.LowPercent,
			MinAge:      images.MinAge,
			MaxAge:      images.MaxAge,
		},
		Node:    s.cfg.NodeName,
		Dir:     s.cfg.RootDir,
		Runtime: s.runtime,
		Events:  in.events,
		Log:     s.log,
		Changed: in.status.ImagesChanged,
		Removed: s.metrics.Images.Removed,
		Alive: func(uid types.UID) bool {
			pod := in.pods.Get(uid)
			return pod != nil && !plan.Terminal(pod.Status.Phase)
		},
	})
}

// newContainerGC makes what removes containers that have ended.
func newContainerGC(s *surroundings, in podInputs) *containergc.Collector {
	kept := s.cfg.Containers.Ended
	return containergc.New(containergc.Config{
		Policy: containergc.Policy{
			MinAge:       kept.MinAge,
			PerContainer: kept.PerContainer,
			Total:        kept.Total,
		},
		Node:    s.cfg.NodeName,
		Runtime: s.runtime,
		Pods:    in.pods,
		Logs:    s.logs(),
		Events:  in.events,
		Log:     s.log,
	})
}

// oldInstances returns how many instances that have ended the plan of a pod keeps beside the newest.
func oldInstances(perContainer int) int {
	if perContainer < 0 {
		return math.MaxInt - 1
	}
	return perContainer
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Leftovers are looked for at once when all pods are known, then now and then; sooner when something could
// not be removed yet, such as a volume whose driver has not registered again.
const (
	leftoversPeriod = time.Minute
	leftoversRetry  = 5 * time.Second
)

// watchLeftovers removes what pods that are no more have left: those of earlier lives of the agent, and those
// that went before they were looked at. What they had of the CPU goes, too.
func (a *Agent) watchLeftovers(ctx context.Context) {
	select {
	case <-a.source.Synced():
	case <-ctx.Done():
		return
	}

	// the page of static pods may not answer: its pods are not gone
	for !a.source.Complete() {
		if pause(ctx, leftoversRetry) != nil {
			return
		}
	}

	told := ""
	for {
		wait := leftoversPeriod
		err := a.removeLeftovers(ctx)
		if err != nil {
			wait = leftoversRetry
			if ctx.Err() == nil && err.Error() != told {
				a.log.Warn("remove what pods that are gone have left", "err", err)
			}

			told = err.Error()
		}

		if pause(ctx, wait) != nil {
			return
		}
	}
}

func (a *Agent) removeLeftovers(ctx context.Context) error {
	inRuntime, err := a.runtime.Pods(ctx)
	if err != nil {
		return fmt.Errorf("pods of the container runtime: %w", err)
	}

	running := map[types.UID]bool{}
	for p := range inRuntime {
		uid := types.UID(p.UID)
		running[uid] = true
		if a.source.Get(uid) == nil {
			a.worker.Enqueue(uid)
		}
	}

	keep := func(uid types.UID) bool {
		return running[uid] || a.source.Get(uid) != nil ||
			a.worker.Knows(uid)
	}

	return errors.Join(a.volumes.Orphans(ctx, keep), a.worker.OrphanLogs(keep),
		a.tendCgroups(ctx, keep), a.settleImages(ctx))
}

// settleImages forgets how images were pulled that are gone.
func (a *Agent) settleImages(ctx context.Context) error {
	asked := time.Now()
	images, err := a.runtime.ListImages(ctx)
	if err != nil {
		return fmt.Errorf("images of the container runtime: %w", err)
	}
	return a.access.Settle(images, asked)
}

// Package alarm says which volumes of a node cannot be used, and which can be again: in the log, and by
// events on their claims. It changes nothing.
package alarm

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/retry"
)

// Volumes are those of the node. It is a volume.Store.
type Volumes interface {
	// Damaged returns the volumes and snapshots that cannot be used.
	Damaged() []volume.Volume
	Get(id string) (volume.Volume, error)
	Snapshot(id string) (volume.Volume, error)
}

// period is how often it is looked what has changed. It takes no I/O.
const period = 10 * time.Second

// Watcher looks for changes.
type Watcher struct {
	volumes Volumes
	tell    func(changed []volume.Volume)
	last    map[string]string // damages that were told, by ID
}

// New returns a Watcher that tells each change once: which volumes are damaged since, at the start all that
// are, and which can be used again, whose damage is nil.
func New(volumes Volumes, tell func(changed []volume.Volume)) *Watcher {
	return &Watcher{volumes: volumes, tell: tell}
}

// Run looks until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	for range retry.Every(ctx, period) {
		if changed := w.look(); len(changed) > 0 {
			w.tell(changed)
		}
	}
}

func (w *Watcher) look() (changed []volume.Volume) {
	now := map[string]string{}
	for _, v := range w.volumes.Damaged() {
		now[v.ID] = v.Damage.Error()
		if w.last[v.ID] != now[v.ID] {
			changed = append(changed, v)
		}
	}

	for _, id := range slices.Sorted(maps.Keys(w.last)) {
		if now[id] != "" {
			continue
		}
		// One that was deleted is nobody's any more.
		if v, there := w.find(id); there && v.Damage == nil {
			changed = append(changed, v)
		}
	}

	w.last = now
	return changed
}

func (w *Watcher) find(id string) (v volume.Volume, there bool) {
	v, err := w.volumes.Get(id)
	if err != nil {
		v, err = w.volumes.Snapshot(id)
	}
	return v, err == nil
}

// most is how many volumes are named one by one that change at a time, in the log and by events.
const most = 50

// ToLog tells a log. Of many volumes it names the first.
func ToLog(log *slog.Logger) func(changed []volume.Volume) {
	return func(changed []volume.Volume) {
		for _, v := range changed[:min(len(changed), most)] {
			if v.Damage != nil {
				log.Error("volume cannot be used", "volume", v.ID, "err", v.Damage)
			} else {
				log.Info("volume can be used again", "volume", v.ID)
			}
		}
		if len(changed) > most {
			log.Error("more volumes cannot be used, or can be again", "volumes", len(changed)-most)
		}
	}
}

// Package orphan says, by an event on the Node and in the log, that volumes and snapshots are on a node that
// no object of the Kubernetes API stands for, as when the node was forgotten and comes back: nothing ever
// deletes them, and they count as promised. What to do about each is said by package doctor. It changes
// nothing.
package orphan

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/retry"
)

// Volumes are those of the node. It is a volume.Store.
type Volumes interface {
	List(after string, limit int) []volume.Volume
	Snapshots(source, after string, limit int) []volume.Volume
}

// Config of a Watcher.
type Config struct {
	Node    string
	Volumes Volumes
	Objects *objects.Watched

	// Handles returns the IDs of snapshots that have an object, on whatever node; known is false if that is
	// not known.
	Handles func() (handles map[string]bool, known bool)

	Events *event.Recorder
	Log    *slog.Logger

	// Period is how often it is looked; 0: every 5 minutes.
	Period time.Duration
}

const (
	defaultPeriod = 5 * time.Minute

	// grace is how long something may be without its object because that is being made.
	grace = 10 * time.Minute
)

// Watcher looks for orphans.
type Watcher struct {
	cfg  Config
	last []string // those that were said last
}

// New returns a Watcher.
func New(cfg Config) *Watcher { return &Watcher{cfg: cfg} }

// Run looks until ctx ends. The objects must be listed.
func (w *Watcher) Run(ctx context.Context) {
	for range retry.Every(ctx, cmp.Or(w.cfg.Period, defaultPeriod)) {
		found := w.find(time.Now())
		if len(found) > 0 && !slices.Equal(found, w.last) {
			w.say(found)
		}
		w.last = found
	}
}

// find returns the IDs of orphans.
func (w *Watcher) find(now time.Time) (ids []string) {
	for _, v := range w.cfg.Volumes.List("", 0) {
		isYoung := now.Sub(v.Created) < grace
		if !isYoung && !driver.IsInline(v.Name) && len(w.cfg.Objects.Volumes.By(v.ID)) == 0 {
			ids = append(ids, v.ID)
		}
	}

	handles, known := w.cfg.Handles()
	if !known {
		return ids
	}
	for _, s := range w.cfg.Volumes.Snapshots("", "", 0) {
		if now.Sub(s.Created) >= grace && !handles[s.ID] {
			ids = append(ids, s.ID)
		}
	}

	return ids
}

func (w *Watcher) say(ids []string) {
	message := fmt.Sprintf("nothing in the API stands for %d volumes or snapshots of %s, such as %s:"+
		" trivet-csi doctor says what to do", len(ids), driver.Name, ids[0])
	w.cfg.Events.Record(event.Node(w.cfg.Node), corev1.EventTypeWarning, "VolumesWithoutObjects", message)
	w.cfg.Log.Warn("volumes or snapshots have no object", "count", len(ids), "first", ids[0])
}

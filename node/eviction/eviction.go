// Package eviction keeps the node from running out of memory, disk space, inodes and processes: it removes
// what nobody needs, and where that is not enough it evicts pods, one after the other
// (https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/). The signals, thresholds,
// order of pods, messages and events are those of kubelet.
//
// What is decided is pure, in decide.go, layout.go, rank.go and message.go. What is measured is in observe.go
// and usage.go: a look reads a few small files, and pods are measured only when one has to go.
package eviction

import (
	"context"
	"log/slog"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/memoryalarm"
	"github.com/trivet-node/trivet/node/podworker"
	"github.com/trivet-node/trivet/node/threshold"
)

// How often the node is looked at: kubelet does so every ten seconds. A threshold that is near has a closer
// look, and so has a pod that is to be gone.
const (
	period      = 10 * time.Second
	nearPeriod  = time.Second
	cleanupPoll = 250 * time.Millisecond

	// Memory that changes fast is not a reason to do nothing but look.
	leastPause = 100 * time.Millisecond
)

const (
	// cleanupTimeout is how long an evicted pod is waited for before another one has to go.
	cleanupTimeout = 30 * time.Second

	// reclaimTimeout bounds the removal of what nobody needs: memory may run out meanwhile.
	reclaimTimeout = 30 * time.Second
)

// Observer measures the node.
type Observer interface {
	// Observe returns what can be measured now. Thresholds apply as the layout says.
	Observe(ctx context.Context) (Observation, Layout)
}

// Meter measures what pods use, by their UIDs. What they have on disk takes longer to find out.
type Meter interface {
	Usage(ctx context.Context, disk bool) (map[types.UID]Usage, error)
}

// Pods are those of the node.
type Pods interface {
	// Active returns the pods that have not ended, but for mirrors; none before all are known.
	Active() []*v1.Pod
	// Evict makes a pod end. It reports whether it ends because of this call.
	Evict(uid types.UID, e podworker.Eviction) bool
	// Evicting returns the pods that are evicted and not taken down yet.
	Evicting() ([]types.UID, error)
}

// Reclaimer removes what nobody needs from a file system.
type Reclaimer func(ctx context.Context) error

// Alarm tells when memory may have become short, between the looks.
type Alarm interface {
	// Aim asks for signs when usages of memory come to their limits.
	Aim(aims []memoryalarm.Aim)
	// Signs has something when memory may have become short.
	Signs() <-chan struct{}
}

// Events records events about the node (event.Recorder).
type Events interface {
	Record(about v1.ObjectReference, kind, reason, message string)
}

// Metrics counts evictions.
type Metrics interface {
	// Evicted counts a pod that was evicted because of a signal.
	Evicted(signal string)
	// Chosen takes how old the figures of a signal were when a pod was chosen by them.
	Chosen(signal string, age time.Duration)
}

// Config is what an Evictor works with.
type Config struct {
	Node       string
	Thresholds []threshold.Threshold

	// Hold is how long a pressure is shown after it was last seen, MaxPodGrace the most seconds that a pod
	// has which is evicted because of a soft threshold.
	Hold        time.Duration
	MaxPodGrace int64

	// Pressures are told what the node is under.
	Pressures *Pressures

	Observer Observer
	Meter    Meter
	Pods     Pods
	Events   Events
	Log      *slog.Logger

	// What may be nil: what removes dead containers and unused images, the alarm, and what counts.
	Containers Reclaimer
	Images     Reclaimer
	Alarm      Alarm
	Metrics    Metrics
}

// Evictor evicts pods of a node that is short of something.
type Evictor struct {
	cfg Config

	// The goroutine of Run alone uses what follows.
	history *history
	before  Observation

	// waiting is since when each pod is known to be evicted.
	waiting map[types.UID]time.Time

	// rested is when something may be done again after nobody was evicted: signs of the kernel may come often
	// while there is nothing to do.
	rested time.Time
}

// New returns an evictor. Nothing happens before Run.
func New(cfg Config) *Evictor {
	return &Evictor{cfg: cfg, history: newHistory(cfg.Hold), waiting: map[types.UID]time.Time{}}
}

// Run looks at the node and acts until ctx ends.
func (e *Evictor) Run(ctx context.Context) {
	var signs <-chan struct{}
	if e.cfg.Alarm != nil {
		signs = e.cfg.Alarm.Signs()
	}

	for ctx.Err() == nil {
		pause := e.look(ctx)
		if retry.Sleep(ctx, leastPause) != nil {
			return
		}

		select {
		case <-ctx.Done():
		case <-signs:
		case <-time.After(pause - leastPause):
		}
	}
}

// look measures the node, decides, and acts on it. It returns when to look again.
func (e *Evictor) look(ctx context.Context) time.Duration {
	seen, layout := e.cfg.Observer.Observe(ctx)
	now := time.Now()
	thresholds := layout.thresholds(e.cfg.Thresholds)

	v := e.history.judge(thresholds, seen, now)
	e.cfg.Pressures.set(v.Pressure)
	if e.cfg.Alarm != nil {
		e.cfg.Alarm.Aim(aims(thresholds, seen))
	}

	pause := period
	if near(thresholds, e.before, seen, 2*period) {
		pause = nearPeriod
	}
	if !v.Due.IsZero() {
		pause = min(pause, max(v.Due.Sub(now), leastPause))
	}

	e.before = seen
	if len(v.Met) == 0 {
		return pause
	}

	return e.act(ctx, v.Met, seen, layout, pause)
}

// act frees what the first of the thresholds is about. It returns when to look again; pause is when that
// would be if nothing were to be waited for.
func (e *Evictor) act(
	ctx context.Context,
	met []threshold.Threshold,
	seen Observation,
	layout Layout,
	pause time.Duration,
) time.Duration {
	// What an evicted pod uses comes back when it has ended: another one would go in vain.
	evicting := e.evicting()
	if e.waits(evicting) {
		return cleanupPoll
	}

	if left := time.Until(e.rested); left > 0 {
		return left
	}

	e.rested = time.Now().Add(nearPeriod)
	starved := resources[met[0].Signal]
	e.cfg.Events.Record(event.Node(e.cfg.Node), v1.EventTypeWarning, "EvictionThresholdMet",
		"Attempting to reclaim "+string(starved))
	if e.reclaim(ctx, met[0].Signal, layout) {
		e.cfg.Log.Info("enough was removed without evicting a pod", "resource", starved)
		return pause
	}

	usage, err := e.cfg.Meter.Usage(ctx, slices.Contains(ofDisk, met[0].Signal))
	if err != nil {
		e.cfg.Log.Warn("pods are not measured: none can be evicted", "resource", starved, "err", err)
		return nearPeriod
	}

	for _, t := range met {
		if e.cfg.Metrics != nil {
			e.cfg.Metrics.Chosen(t.Signal, time.Since(seen[t.Signal].Time))
		}
	}

	active := slices.DeleteFunc(e.cfg.Pods.Active(), func(p *v1.Pod) bool {
		return slices.Contains(evicting, p.UID)
	})
	for _, c := range rank(met[0].Signal, layout, active, usage) {
		if e.evict(c, met, seen) {
			e.rested = time.Time{}
			return cleanupPoll
		}
	}

	e.cfg.Log.Warn("no pod can be evicted", "resource", starved, "signal", met[0].Signal)
	return period
}

// evict evicts a pod, unless it is one that must not go.
func (e *Evictor) evict(c candidate, met []threshold.Threshold, seen Observation) bool {
	text, annotations := message(c, met, seen)
	grace := graceOf(c.pod, met[0], e.cfg.MaxPodGrace)
	evicted := e.cfg.Pods.Evict(c.pod.UID, podworker.Eviction{
		Reason:      "Evicted",
		Message:     text,
		Disruption:  text,
		Annotations: annotations,
		Grace:       time.Duration(grace) * time.Second,
	})
	if !evicted {
		return false
	}

	e.cfg.Log.Info("pod is evicted",
		"pod", c.pod.Namespace+"/"+c.pod.Name,
		"signal", met[0].Signal,
		"why", text,
	)

	e.waiting[c.pod.UID] = time.Now()
	if e.cfg.Metrics != nil {
		e.cfg.Metrics.Evicted(met[0].Signal)
	}

	return true
}

// evicting returns the pods that are on their way out.
func (e *Evictor) evicting() []types.UID {
	out, err := e.cfg.Pods.Evicting()
	if err != nil {
		e.cfg.Log.Warn("which pods are evicted already", "err", err)
	}
	return out
}

// waits reports whether one of the evicted pods is still to be waited for. They are forgotten when they are
// gone.
func (e *Evictor) waits(evicting []types.UID) bool {
	for uid := range e.waiting {
		if !slices.Contains(evicting, uid) {
			delete(e.waiting, uid)
		}
	}

	now, waits := time.Now(), false
	for _, uid := range evicting {
		since, known := e.waiting[uid]
		if !known {
			since = now
			e.waiting[uid] = now
		}

		waits = waits || now.Sub(since) < cleanupTimeout
	}

	return waits
}

// reclaim removes what nobody needs from the file system of a signal. It reports whether that was enough for
// all thresholds.
func (e *Evictor) reclaim(ctx context.Context, signal string, layout Layout) bool {
	containers, images := layout.reclaim(signal)
	if !containers && !images {
		return false
	}

	ctx, cancel := context.WithTimeout(ctx, reclaimTimeout)
	defer cancel()

	e.run(ctx, "dead containers", e.cfg.Containers, containers)
	e.run(ctx, "unused images", e.cfg.Images, images)

	seen, layout := e.cfg.Observer.Observe(ctx)
	return !unresolved(layout.thresholds(e.cfg.Thresholds), seen)
}

// run has a reclaimer remove what it removes, if that is wanted and there is one.
func (e *Evictor) run(ctx context.Context, what string, r Reclaimer, wanted bool) {
	if r == nil || !wanted {
		return
	}
	if err := r(ctx); err != nil {
		e.cfg.Log.Warn("not all was removed", "what", what, "err", err)
	}
}

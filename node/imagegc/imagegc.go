// Package imagegc removes images that no pod uses: when the file system of the images is fuller than a
// threshold, and when they were not used for long. The rules, events and messages are those of kubelet
// (https://kubernetes.io/docs/concepts/architecture/garbage-collection/#container-image-garbage-collection).
// Other than kubelet it remembers across restarts when an image was last used, it looks at the disk again
// after a removal, since images share layers, and an image that a pod was given stays until the pod has
// ended.
//
// What is removed is decided in decide.go, which is pure.
package imagegc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/runtime"
)

// Runtime is what a Collector needs of the container runtime (runtime.Client).
type Runtime interface {
	ListImages(ctx context.Context) ([]*runtime.Image, error)
	Containers(ctx context.Context, which runtime.Selection) ([]runtime.Container, error)
	ContainerStatus(ctx context.Context, id string) (runtime.Status, error)
	RemoveImage(ctx context.Context, id string) error
	ImageDir(ctx context.Context) (string, error)
}

// Events records events about the node (event.Recorder).
type Events interface {
	Record(about v1.ObjectReference, kind, reason, message string)
}

// Config is what a Collector works with.
type Config struct {
	Policy  Policy
	Node    string // name of the Node, which the events are about
	Dir     string // of the records: kubelet's root directory
	Runtime Runtime
	Events  Events
	Log     *slog.Logger

	// Alive reports whether the node has a pod that has not ended.
	Alive func(pod types.UID) bool

	// Changed is called when an image has come or gone; nil: nobody wants to know.
	Changed func()

	// Removed is called for each image that was removed, with kubelet's reason, "age" or "space"; nil: nobody
	// counts.
	Removed func(reason string)

	// Disk measures the file system that a directory is on; nil: machine.FileSystemOf.
	Disk func(dir string) (machine.FileSystem, error)
}

// Collector removes the images of one node. All methods may be called at the same time.
type Collector struct {
	cfg   Config
	holds *holds

	// turn holds one of those who look at images and remove them, who may use what follows.
	turn    chan struct{}
	started time.Time
	records *records
	mounted map[string][]string // the images that are mounted in containers, by the container's ID
}

// Reasons why images are removed, kubelet's.
const (
	byAge   = "age"   // not used for longer than the maximum age
	bySpace = "space" // to free space
)

// New returns a collector. It reads what an earlier agent has remembered, and removes nothing.
func New(cfg Config) *Collector {
	if cfg.Disk == nil {
		cfg.Disk = machine.FileSystemOf
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.Removed == nil {
		cfg.Removed = func(string) {}
	}

	now := time.Now()
	known, err := openRecords(cfg.Dir, now)
	if err != nil {
		cfg.Log.Warn("images count as used now", "err", err)
	}

	return &Collector{
		cfg:     cfg,
		holds:   newHolds(cfg.Alive),
		turn:    make(chan struct{}, 1),
		started: now,
		records: known,
		mounted: map[string][]string{},
	}
}

// Hold keeps an image for a pod until the pod has ended, by the image's ID. If the image is just being
// removed it is not kept: the channel, nil otherwise, is closed when it is gone, and it must be pulled once
// more.
func (c *Collector) Hold(id string, pod types.UID) (removed <-chan struct{}) {
	removed, isNew := c.holds.hold(id, pod)
	if isNew {
		c.cfg.Changed()
	}
	return removed
}

// period is how often images are looked at, kubelet's.
const period = 5 * time.Minute

// Run looks at the images periodically until ctx ends.
func (c *Collector) Run(ctx context.Context) {
	failed := false
	for ctx.Err() == nil {
		err := c.collect(ctx)
		if err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("image garbage collection failed", "again", failed, "err", err)
			// As in kubelet the first failure is none yet.
			if failed {
				c.event("ImageGCFailed", err.Error())
			}
		}

		failed = err != nil
		_ = retry.Sleep(ctx, period)
	}
}

// ReclaimImages removes all images that no pod uses and that are older than the minimum age.
func (c *Collector) ReclaimImages(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}

	now := time.Now()
	images, err := c.look(ctx, now)
	if err != nil {
		return err
	}

	_, err = c.free(ctx, surplus(images, c.newest(now), math.MaxInt64), bySpace)
	return err
}

// collect applies the policy once.
func (c *Collector) collect(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}

	now := time.Now()
	images, err := c.look(ctx, now)
	if err != nil {
		return err
	}

	old := c.cfg.Policy.aged(images, now)
	if _, err := c.free(ctx, old, byAge); err != nil {
		return fmt.Errorf("wanted to free images older than %v, encountered errors in image deletion: %w",
			c.cfg.Policy.MaxAge, err)
	}

	if c.cfg.Policy.HighPercent >= 100 {
		return nil
	}

	return c.makeRoom(ctx, without(images, old), c.newest(now))
}

// newest is when an image that may be removed for space was first seen at the latest. After a restart the
// images count as new, as in kubelet: the pods that hold them may not be known yet.
func (c *Collector) newest(now time.Time) time.Time {
	oldest := now.Add(-c.cfg.Policy.MinAge)
	if c.started.After(oldest) {
		// Nothing is as old as that.
		return time.Time{}
	}
	return oldest
}

// makeRoom removes images, the least recently used first, if the disk is above the high threshold, until it
// is below the low one.
func (c *Collector) makeRoom(ctx context.Context, images []image, newest time.Time) error {
	d, err := c.disk(ctx)
	if err != nil {
		return err
	}
	if d.usedPercent() < c.cfg.Policy.HighPercent {
		return nil
	}

	before, freed := d, int64(0)
	c.cfg.Log.Info("the file system of images is above the high threshold",
		"used%", d.usedPercent(), "high%", c.cfg.Policy.HighPercent, "low%", c.cfg.Policy.LowPercent)

	// Images share layers: that the sizes of what was removed are enough does not mean that the space is.
	for c.cfg.Policy.excess(d) > 0 {
		want := c.cfg.Policy.excess(d)
		next := surplus(images, newest, want)
		if len(next) == 0 {
			return c.notEnough(before, freed)
		}

		size, err := c.free(ctx, next, bySpace)
		freed += size
		if err != nil {
			return fmt.Errorf("wanted to free %d bytes, but freed %d bytes space with errors in image "+
				"deletion: %w", want, size, err)
		}

		images = without(images, next)
		if d, err = c.disk(ctx); err != nil {
			return err
		}
	}

	return nil
}

// notEnough is the error, and the event, of a disk that images are not the reason of.
func (c *Collector) notEnough(d disk, freed int64) error {
	message := fmt.Sprintf("Insufficient free disk space on the node's image filesystem (%d%% of %s used). "+
		"Failed to free sufficient space by deleting unused images (freed %d bytes). "+
		"Investigate disk usage, as it could be used by active images, logs, volumes, or other data.",
		d.usedPercent(), formatSize(d.size), freed)
	c.event("FreeDiskSpaceFailed", message)
	return errors.New(message)
}

func (c *Collector) event(reason, message string) {
	c.cfg.Events.Record(event.Node(c.cfg.Node), v1.EventTypeWarning, reason, message)
}

// disk measures the file system of the images.
func (c *Collector) disk(ctx context.Context) (disk, error) {
	dir, err := c.cfg.Runtime.ImageDir(ctx)
	if err != nil {
		return disk{}, err
	}

	fs, err := c.cfg.Disk(dir)
	if err != nil {
		return disk{}, err
	}

	if fs.Size <= 0 {
		err := errors.New("invalid capacity 0 on image filesystem")
		c.event("InvalidDiskCapacity", err.Error())
		return disk{}, err
	}

	return disk{size: fs.Size, free: fs.Free}, nil
}

// free removes images, of those that no pod has been given meanwhile. It returns their sizes together. One
// that cannot be removed does not keep the others.
func (c *Collector) free(ctx context.Context, images []image, why string) (int64, error) {
	var freed int64
	var errs []error
	changed := false
	for _, i := range images {
		if ctx.Err() != nil {
			errs = append(errs, context.Cause(ctx))
			break
		}

		remove := func() error { return c.cfg.Runtime.RemoveImage(ctx, i.id) }
		done, err := c.holds.remove(i.id, remove)
		if err != nil {
			errs = append(errs, err)
			continue
		}

		if done {
			changed = true
			freed += i.size
			c.cfg.Removed(why)
			delete(c.records.known, i.id)
			c.cfg.Log.Info("image removed",
				"image", i.id, "reason", why, "size", i.size, "used", i.used, "seen", i.seen)
		}
	}

	if changed {
		c.saveRecords()
		c.cfg.Changed()
	}

	return freed, errors.Join(errs...)
}

// without returns the images that are not among others.
func without(images, others []image) []image {
	gone := map[string]bool{}
	for _, i := range others {
		gone[i.id] = true
	}

	var out []image
	for _, i := range images {
		if !gone[i.id] {
			out = append(out, i)
		}
	}

	return out
}

// formatSize writes a size as kubelet does.
func formatSize(bytes int64) string {
	size, unit := float64(bytes), "TiB"
	if size < 1<<10 {
		return fmt.Sprintf("%d B", bytes)
	}

	for _, smaller := range []string{"KiB", "MiB", "GiB"} {
		size /= 1 << 10
		if size < 1<<10 {
			unit = smaller
			break
		}
	}

	if unit == "TiB" {
		size /= 1 << 10
	}

	return fmt.Sprintf("%.1f %s", size, unit)
}

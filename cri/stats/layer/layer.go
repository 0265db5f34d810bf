// Package layer measures the writable layers of containers. A layer is counted again only when its container
// has run and the file system has changed, and nobody waits long for that: a call for the stats of a hundred
// containers must not last as long as it takes to count all their files.
package layer

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/trivet-node/trivet/internal/diskusage"
)

const (
	// patience is how long all calls of one moment together wait for layers that are being counted. They give
	// the last figures of those that take longer.
	patience = 100 * time.Millisecond
	moment   = time.Second
)

// Store has the writable layers (rootfs.Store).
type Store interface {
	// Dirs returns the directories of what a container wrote.
	Dirs(id string) []string

	// Project returns the directory whose project quota counts them, where there are such.
	Project(id string) string

	// Dir is a directory of the file system that they are on.
	Dir() string
}

// Meter measures writable layers. It may be used by many goroutines.
type Meter struct {
	store Store
	trees *diskusage.Meter

	// mu guards began, which is when the present moment began.
	mu    sync.Mutex
	began time.Time
}

// New returns a Meter. It starts nothing until it is asked.
func New(store Store, log *slog.Logger) *Meter {
	return &Meter{store: store, trees: diskusage.New(log)}
}

// Close ends what is being counted.
func (m *Meter) Close() { m.trees.Close() }

// Dir is a directory of the file system that the layers are on.
func (m *Meter) Dir() string { return m.store.Dir() }

// Measure returns what a container wrote. activity changes whenever the container runs, such as its CPU time
// in nanoseconds; diskusage.Ended is that of one that does not run any more. The Time of the figure is zero
// if nothing is known yet.
func (m *Meter) Measure(id string, activity int64) diskusage.Figure {
	ctx, cancel := context.WithDeadline(context.Background(), m.deadline())
	defer cancel()
	return m.trees.Measure(ctx, id, diskusage.Tree{
		Dirs:     m.store.Dirs(id),
		Activity: activity,
		Project:  m.store.Project(id),
	})
}

// deadline is until when a call that begins now waits.
func (m *Meter) deadline() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.began) > moment {
		m.began = time.Now()
	}
	return m.began.Add(patience)
}

// Keep forgets all containers for which it returns false.
func (m *Meter) Keep(keep func(id string) bool) { m.trees.Keep(keep) }

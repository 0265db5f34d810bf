// Package exit brings the exits that the monitor reports to whom they concern: a container's to its record,
// and that of the init of a shared PID namespace to its sandbox's. At the start of the server it also ends
// the processes that no record names.
package exit

import (
	"context"
	"log/slog"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/sandbox"
)

// Monitor has the processes.
type Monitor interface {
	// Exits reports the end of each process once. It is closed when the monitor's client is.
	Exits() <-chan monitor.Exit

	List() []monitor.Status
	Delete(ctx context.Context, id string) error
}

// Containers record the exits of containers.
type Containers interface {
	Ended(e monitor.Exit)
	Known(id string) bool
}

// Sandboxes record the exits of inits.
type Sandboxes interface {
	InitEnded(id string) (wasReady bool, err error)
	Known(id string) bool
}

// Config is what a Router needs.
type Config struct {
	Monitor    Monitor
	Containers Containers
	Sandboxes  Sandboxes
	Log        *slog.Logger
}

// Router routes exits.
type Router struct{ cfg Config }

// New returns a Router. It starts nothing.
func New(cfg Config) *Router { return &Router{cfg: cfg} }

// RemoveOrphans ends the processes that no record names. It is called once, when all records are read and
// none is being made. A process that cannot be ended now is tried again at the next start.
func (r *Router) RemoveOrphans(ctx context.Context) {
	for _, s := range r.cfg.Monitor.List() {
		if r.Knows(s.ID) {
			continue
		}
		if err := r.cfg.Monitor.Delete(ctx, s.ID); err != nil {
			r.cfg.Log.Warn("container without a record is left", "container", s.ID, "err", err)
		}
	}
}

// Knows reports whether a record names a process of the monitor: that of the container or, if it is an init,
// that of the sandbox.
func (r *Router) Knows(id string) bool {
	if sandboxID, isInit := sandbox.InitOf(id); isInit {
		return r.cfg.Sandboxes.Known(sandboxID)
	}
	return r.cfg.Containers.Known(id)
}

// Run routes exits until ctx ends or the monitor's client is closed.
func (r *Router) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, open := <-r.cfg.Monitor.Exits():
			if !open {
				return nil
			}
			r.route(e)
		}
	}
}

func (r *Router) route(e monitor.Exit) {
	sandboxID, isInit := sandbox.InitOf(e.ID)
	if !isInit {
		r.cfg.Containers.Ended(e)
		return
	}

	wasReady, err := r.cfg.Sandboxes.InitEnded(sandboxID)
	if err != nil {
		r.cfg.Log.Error("end of a sandbox is not recorded", "sandbox", sandboxID, "err", err)
	}

	if wasReady {
		r.cfg.Log.Warn("the init of a shared PID namespace has ended, and all that ran there",
			"sandbox", sandboxID)
	}
}

package container

import (
	"context"
	"time"

	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/monitor"
)

// recovery compares the records of an earlier server with what has become of its containers.
type recovery struct {
	containers *Service

	// statuses are those of the monitor, by the IDs of the containers.
	statuses map[string]monitor.Status
}

// reconcile brings a recorded container to what cri/life decides. What fails is tried again at the next start
// or when the client removes the container.
func (f recovery) reconcile(ctx context.Context, r Record) {
	c := f.containers
	status, known := f.statuses[r.ID]
	_, err := c.cfg.Sandboxes.Get(r.Sandbox)
	inSandbox := err == nil

	switch life.ContainerAtStart(r.life(), inSandbox, life.ProcessOf(status, known)) {
	case life.Undo:
		if err := c.undo(ctx, r); err != nil {
			c.cfg.Log.Warn("half-made container is not removed", "container", r.ID, "err", err)
		}

	case life.Remove:
		if err := c.Remove(ctx, r.ID); err != nil {
			c.cfg.Log.Warn("container without a pod is not removed", "container", r.ID, "err", err)
		}

	case life.Finish:
		if status.Exit != nil {
			c.Ended(*status.Exit)
		} else {
			c.Ended(life.Lost(r.ID, time.Now()))
		}

	case life.Adopt:
		c.ends.expect(r.ID)
		f.resumeUpdate(ctx, r)
	case life.AdoptStart:
		c.ends.expect(r.ID)
		f.resumeStart(ctx, r.ID)
		f.resumeUpdate(ctx, r)
	}
}

// resumeUpdate finishes an update that was cut off, after the OCI runtime that may still work on it.
func (f recovery) resumeUpdate(ctx context.Context, r Record) {
	if r.Change == nil {
		return
	}

	c := f.containers
	err := c.cfg.Inventory.AwaitUpdates(ctx, r.ID)
	if err == nil {
		err = update{containers: c, Record: r}.finish(ctx)
	}
	if err != nil {
		c.cfg.Log.Warn("an update that was cut off is not finished", "container", r.ID, "err", err)
	}
}

// resumeStart finishes a start that was cut off between the runtime and the record.
func (f recovery) resumeStart(ctx context.Context, id string) {
	c := f.containers
	started, err := c.cfg.Inventory.Started(ctx, id)
	if err == nil && started {
		_, err = c.records.Change(id, (*Record).start)
	}
	if err != nil {
		c.cfg.Log.Warn("it is not known whether a container was started", "container", id, "err", err)
	}
}

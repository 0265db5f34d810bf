// Package attach remembers which volumes an orchestrator has attached to this node (CSI spec,
// ControllerPublishVolume), and how. A volume of this driver is on its node anyway; attaching reserves it:
// while it is attached it is not deleted, it is read-only if it was attached so, and there are no more than
// a number of volumes at a time. Only orchestrators that attach all volumes need this.
package attach

import (
	"context"
	"fmt"
	"sync"

	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/keylock"
)

// How a volume is attached. It is the durable state of an attached volume.
type How struct {
	ReadOnly     bool `json:"readOnly,omitempty"`
	SingleWriter bool `json:"singleWriter,omitempty"`
}

// Attachments are the volumes that are attached. It is safe for concurrent use.
type Attachments struct {
	records *durable.Store[How]
	most    int64
	locks   keylock.Locks[string] // by volume ID; held while a record is written

	// mu guards what follows.
	mu       sync.Mutex
	attached map[string]How // by volume ID
}

// Open reads the records in a directory. No more than most volumes are attached at a time; 0: as many as
// there are. The records that it returns beside were unreadable and are set aside: their volumes are not
// attached any more.
func Open(dir string, most int64) (*Attachments, []durable.Unreadable, error) {
	records, err := durable.OpenStore[How](dir, false)
	if err != nil {
		return nil, nil, fmt.Errorf("open records of attached volumes: %w", err)
	}
	attached, unreadable, err := records.List()
	if err != nil {
		return nil, nil, fmt.Errorf("read records of attached volumes: %w", err)
	}
	return &Attachments{records: records, most: most, attached: attached}, unreadable, nil
}

// Most is how many volumes may be attached at a time; 0: as many as there are.
func (a *Attachments) Most() int64 { return a.most }

// Attach attaches a volume. Repeating it is success, in another way volume.ErrConflict; one volume too many
// is volume.ErrFull.
func (a *Attachments) Attach(ctx context.Context, id string, how How) error {
	if err := volume.CheckID(id); err != nil {
		return err
	}
	unlock, err := a.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	fresh, err := a.reserve(id, how)
	if err != nil || !fresh {
		return err
	}
	if err := a.records.Put(id, how); err != nil {
		a.forget(id)
		return fmt.Errorf("attach volume %s: %w", id, err)
	}
	return nil
}

// reserve takes the place of a volume, and reports whether it had none.
func (a *Attachments) reserve(id string, how How) (fresh bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	have, ok := a.attached[id]
	switch {
	case ok && have == how:
		return false, nil
	case ok:
		return false, fmt.Errorf("%w: volume %s is attached with %+v, requested was %+v",
			volume.ErrConflict, id, have, how)
	case a.most > 0 && int64(len(a.attached)) >= a.most:
		return false, fmt.Errorf("%w: %d volumes are attached already", volume.ErrFull, a.most)
	}
	a.attached[id] = how
	return true, nil
}

// Detach undoes Attach. A volume that is not attached is success.
func (a *Attachments) Detach(ctx context.Context, id string) error {
	if volume.CheckID(id) != nil {
		return nil
	}
	unlock, err := a.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	if err := a.records.Delete(id); err != nil {
		return fmt.Errorf("detach volume %s: %w", id, err)
	}
	a.forget(id)
	return nil
}

func (a *Attachments) forget(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.attached, id)
}

// Of returns how a volume is attached, if it is.
func (a *Attachments) Of(id string) (how How, attached bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	how, attached = a.attached[id]
	return how, attached
}

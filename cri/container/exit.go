package container

import (
	"errors"
	"sync"

	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/record"
)

// Ended records how a container ended, and wakes those who wait for it. An exit of an unknown container is
// ignored. It takes no lock by ID: Stop waits for it.
func (c *Service) Ended(e monitor.Exit) {
	_, err := c.records.Change(e.ID, func(r *Record) bool {
		records := life.RecordsExit(r.life())
		if records {
			r.end(life.Ended(e))
		}
		return records
	})
	c.ends.close(e.ID)
	if err != nil && !errors.Is(err, record.ErrNotFound) {
		c.cfg.Log.Error("exit is not recorded", "container", e.ID, "err", err)
	}
}

// ending returns how the container ended.
func (r Record) ending() life.Ending {
	return life.Ending{
		Code:    r.Code,
		Reason:  r.Reason,
		Message: r.Message,
		At:      r.Finished,
	}
}

// ends are the ends to come of the containers that have a process. Its zero value is ready.
type ends struct {
	mu   sync.Mutex // guards byID
	byID map[string]chan struct{}
}

// expect notes that a container has a process, which will end.
func (e *ends) expect(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byID == nil {
		e.byID = map[string]chan struct{}{}
	}
	e.byID[id] = make(chan struct{})
}

// of returns a channel that is closed when the container has ended; nil if it has no process.
func (e *ends) of(id string) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.byID[id]
}

// close notes that the container has no process any more. Repeating it is harmless.
func (e *ends) close(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if end, ok := e.byID[id]; ok {
		close(end)
		delete(e.byID, id)
	}
}

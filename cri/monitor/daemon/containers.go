package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/trivet-node/trivet/cri/monitor/wire"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/keylock"
)

// containers are those of the node. A container is in it from the end of its creation until it is forgotten.
type containers struct {
	node  *node
	locks keylock.Locks[string] // one creation or removal at a time for each ID

	// mu guards byID.
	mu   sync.Mutex
	byID map[string]*container
}

// find returns a container; wire.ErrNotFound if there is none of that ID.
func (cs *containers) find(id string) (*container, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c := cs.byID[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("container %s: %w", id, wire.ErrNotFound)
}

// list returns the containers as they are now, in no order.
func (cs *containers) list() []*container {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return slices.Collect(maps.Values(cs.byID))
}

func (cs *containers) put(c *container) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.byID[c.id] = c
}

func (cs *containers) remove(id string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.byID, id)
}

// create makes a container, whose program does not run yet. On an error nothing of it stays.
func (cs *containers) create(want *wire.Container) (*container, error) {
	if want == nil || !durable.ValidName(want.ID) {
		return nil, errors.New("create: the container has no valid ID")
	}

	unlock, err := cs.locks.Lock(context.Background(), want.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()

	if _, err := cs.find(want.ID); err == nil {
		return nil, fmt.Errorf("create container %s: %w", want.ID, wire.ErrExists)
	}

	// The container's process may end before the reaper knows whose it is.
	release := cs.node.reaper.KeepUnclaimed()
	defer release()

	c := newContainer(cs.node, record{Status: wire.Status{Container: *want}, Creating: true})
	if err := (&creation{c}).run(); err != nil {
		return nil, errors.Join(fmt.Errorf("create container %s: %w", c.id, err), c.undo())
	}

	cs.put(c)
	c.out.pump(cs.node.journal)
	cs.node.reaper.Claim(c.record.Pid, c.fds.pid, c.childEnded)
	return c, nil
}

// adopt gives a container the descriptors that a client kept for it while its monitor was dead.
func (cs *containers) adopt(id string, files wire.Files) {
	c, err := cs.find(id)
	if err != nil {
		return
	}
	if fd := files.Take(wire.FdTTY); fd >= 0 {
		c.setTerminal(fd)
	}
	if fd := files.Take(wire.FdPid); fd >= 0 {
		c.setProcess(fd)
	}
}

// forget ends a container and removes all of it. deleted says that the client has had the runtime delete it.
// A container that is not there is success.
func (cs *containers) forget(id string, deleted bool) error {
	unlock, err := cs.locks.Lock(context.Background(), id)
	if err != nil {
		return err
	}
	defer unlock()

	c, err := cs.find(id)
	if err != nil {
		return cs.undoLeft(id)
	}

	if !deleted {
		if err := c.destroy(); err != nil {
			return fmt.Errorf("forget container %s: %w", id, err)
		}
	}

	if err := c.kill(); err != nil {
		return fmt.Errorf("forget container %s: %w", id, err)
	}

	select {
	case <-c.ended:
	case <-time.After(destroyTimeout):
		return fmt.Errorf("forget container %s: it still runs %s after SIGKILL", id, destroyTimeout)
	}

	// If its files cannot be removed, the next forget finds its record.
	cs.remove(id)
	c.close()
	if err := removeDirectory(c.dir); err != nil {
		return fmt.Errorf("forget container %s: %w", id, err)
	}

	return nil
}

// undoLeft removes what is left of a container that could not be removed when it was forgotten, or when its
// creation failed.
func (cs *containers) undoLeft(id string) error {
	// A container without a valid ID was never made.
	if !durable.ValidName(id) {
		return nil
	}

	r, err := readRecord(cs.node.stateDir, id)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("forget container %s: %w", id, err)
	}

	return newContainer(cs.node, r).undo()
}

// noneLeft returns an error if there is a container, even one of which only a part is left.
func (cs *containers) noneLeft() error {
	left, err := os.ReadDir(filepath.Join(cs.node.stateDir, "containers"))
	if err != nil {
		return fmt.Errorf("look for containers: %w", err)
	}
	if len(left) > 0 {
		return fmt.Errorf("%d containers are left, such as %s", len(left), left[0].Name())
	}
	return nil
}

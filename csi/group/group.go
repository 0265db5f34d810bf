// Package group keeps group snapshots: snapshots of several volumes with what all of them had at one moment.
// Its snapshots are those of package volume. What a group has beside them is a record that says which they
// are: it is there before they are, and calls the group ready when all of them are there, so that a group is
// complete or absent, wherever its making or deleting was cut short.
package group

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/keylock"
)

// Most is how many volumes a group may have.
const Most = 32

// timeout bounds how long a call waits for volumes that others work on, and for a moment.
const timeout = 40 * time.Second

// Volumes are the volumes of this node. It is a volume.Store.
type Volumes interface {
	Together(context.Context, []volume.Request) ([]volume.Volume, error)
	Snapshot(id string) (volume.Volume, error)
	Delete(ctx context.Context, id string) error
}

// Group is a ready group of snapshots.
type Group struct {
	ID        string
	Created   time.Time
	Snapshots []volume.Volume // in the order of the volumes' IDs
}

// Groups are those of a node. It is safe for concurrent use.
type Groups struct {
	volumes Volumes
	records *durable.Store[record]
	locks   keylock.Locks[string] // by ID; held through each operation

	// mu guards what follows.
	mu     sync.Mutex
	groups map[string]record // by ID
	of     map[string]string // the ID of a group, by those of its snapshots
}

// Report is what Open found and put right.
type Report struct {
	Unreadable []durable.Unreadable // records that could not be read; set aside, the snapshots stay

	// Removed are the IDs of groups whose making or deleting was cut short.
	Removed []string

	// Stuck are those where that failed, by ID: it is tried again when the group is made or deleted. So are
	// records that this version does not know; nothing is done about those.
	Stuck map[string]error
}

// Open reads the records in a directory and removes what was left half made or half deleted. Nobody may use
// the volumes before.
func Open(ctx context.Context, dir string, volumes Volumes) (*Groups, Report, error) {
	report := Report{Stuck: map[string]error{}}
	records, err := durable.OpenStore[record](dir, false)
	if err != nil {
		return nil, report, fmt.Errorf("open records of group snapshots: %w", err)
	}

	found, unreadable, err := records.List()
	if err != nil {
		return nil, report, fmt.Errorf("read records of group snapshots: %w", err)
	}

	report.Unreadable = unreadable
	g := &Groups{
		volumes: volumes,
		records: records,
		groups:  map[string]record{},
		of:      map[string]string{},
	}

	for _, id := range slices.Sorted(maps.Keys(found)) {
		if err := found[id].check(id); err != nil {
			report.Stuck[id] = err
			continue
		}

		g.put(id, found[id])
		if found[id].Phase == ready {
			continue
		}
		if err := g.remove(ctx, id, found[id]); err != nil {
			report.Stuck[id] = err
			continue
		}
		report.Removed = append(report.Removed, id)
	}

	return g, report, nil
}

// Create makes snapshots of volumes with what all of them have at one moment, or returns those that an equal
// call made.
func (g *Groups) Create(ctx context.Context, name string, sources []string) (Group, error) {
	r, err := newRecord(name, sources)
	if err != nil {
		return Group{}, err
	}

	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	id := ID(name)
	unlock, err := g.locks.Lock(ctx, id)
	if err != nil {
		return Group{}, err
	}
	defer unlock()

	if old, ok := g.get(id); ok && old.Phase == ready {
		if !slices.Equal(old.Sources, r.Sources) {
			return Group{}, fmt.Errorf("%w: group snapshot %s is of the volumes %q, requested was %q",
				volume.ErrConflict, id, old.Sources, r.Sources)
		}
		return g.view(id, old)
	} else if ok {
		if err := g.remove(ctx, id, old); err != nil {
			return Group{}, err
		}
	}

	return g.make(ctx, id, r)
}

func (g *Groups) make(ctx context.Context, id string, r record) (Group, error) {
	if err := g.checkAbsent(r); err != nil {
		return Group{}, fmt.Errorf("create group snapshot %s: %w", id, err)
	}
	if err := g.records.Put(id, r); err != nil {
		return Group{}, fmt.Errorf("create group snapshot %s: %w", id, err)
	}
	g.put(id, r)

	_, err := g.volumes.Together(ctx, r.requests())
	if err == nil {
		r.Phase = ready
		err = g.records.Put(id, r)
	}
	if err != nil {
		// What is left, if that fails, too, is removed by who repeats the call or deletes the group.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		err = fmt.Errorf("create group snapshot %s: %w", id, err)
		return Group{}, errors.Join(err, g.remove(undo, id, r))
	}

	g.put(id, r)
	return g.view(id, r)
}

// checkAbsent refuses to make snapshots that are there although no record of their group is known: what fails
// would be taken away with them.
func (g *Groups) checkAbsent(r record) error {
	for _, id := range r.snapshots() {
		_, err := g.volumes.Snapshot(id)
		if errors.Is(err, volume.ErrNotFound) {
			continue
		}
		there := fmt.Errorf("%w: snapshot %s is there without its group", volume.ErrConflict, id)
		return errors.Join(there, err)
	}
	return nil
}

// Get returns a group.
func (g *Groups) Get(id string) (Group, error) {
	r, ok := g.get(id)
	if !ok || r.Phase != ready {
		return Group{}, fmt.Errorf("%w: group snapshot %q", volume.ErrNotFound, id)
	}
	return g.view(id, r)
}

// Delete deletes a group with its snapshots. One that does not exist is success.
func (g *Groups) Delete(ctx context.Context, id string) error {
	unlock, err := g.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	r, ok := g.get(id)
	if !ok {
		return nil
	}

	// On a full disk the record is written over in place.
	r.Phase = deleting
	if err := g.records.Update(id, r); err != nil {
		return fmt.Errorf("delete group snapshot %s: %w", id, err)
	}
	g.put(id, r)
	return g.remove(ctx, id, r)
}

// Of returns the ID of the group that a snapshot belongs to, "" if there is none.
func (g *Groups) Of(snapshot string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.of[snapshot]
}

// remove deletes what there is of a group. Its ID is locked.
func (g *Groups) remove(ctx context.Context, id string, r record) error {
	for _, snapshot := range r.snapshots() {
		if err := g.volumes.Delete(ctx, snapshot); err != nil {
			return fmt.Errorf("delete group snapshot %s: %w", id, err)
		}
	}
	if err := g.records.Delete(id); err != nil {
		return fmt.Errorf("delete group snapshot %s: %w", id, err)
	}
	g.drop(id, r)
	return nil
}

func (g *Groups) view(id string, r record) (Group, error) {
	group := Group{ID: id}
	for _, snapshot := range r.snapshots() {
		s, err := g.volumes.Snapshot(snapshot)
		if err != nil {
			return Group{}, fmt.Errorf("group snapshot %s: %w", id, err)
		}
		group.Snapshots = append(group.Snapshots, s)
		group.Created = s.Created
	}
	return group, nil
}

func (g *Groups) get(id string) (record, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, ok := g.groups[id]
	return r, ok
}

func (g *Groups) put(id string, r record) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.groups[id] = r
	for _, snapshot := range r.snapshots() {
		g.of[snapshot] = id
	}
}

func (g *Groups) drop(id string, r record) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.groups, id)
	for _, snapshot := range r.snapshots() {
		delete(g.of, snapshot)
	}
}

package publish

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/durable"
)

// staging is the record of a volume in use.
type staging struct {
	Path         string   `json:"path"`
	Targets      []string `json:"targets,omitempty"`
	SingleWriter bool     `json:"singleWriter,omitempty"`

	// Limited is the number of the device that has the volume's limits, 0 if none may have.
	Limited uint64 `json:"limited,omitempty"`
}

// Staged is where a volume is in use, as its record says.
type Staged struct {
	Path    string   // where it is staged
	Targets []string // where it is published

	// Limited is the number of the device that has the volume's limits; 0 if none may have any.
	Limited uint64
}

// Read reads the records in a directory beside a Publisher that works on it, or without one. It changes
// nothing.
func Read(dir string) (map[string]Staged, []durable.Unreadable, error) {
	records, unreadable, err := durable.Peek[staging](dir)
	all := make(map[string]Staged, len(records))
	for id, st := range records {
		all[id] = Staged{Path: st.Path, Targets: st.Targets, Limited: st.Limited}
	}
	return all, unreadable, err
}

// checkPath returns ErrInUse for another path than that where the volume is staged already.
func (st staging) checkPath(id, path string) error {
	if st.Path != path {
		return fmt.Errorf("%w: %s is staged on %s already", volume.ErrInUse, id, st.Path)
	}
	return nil
}

// with adds a target. A volume for a single writer has one at most, which can be either of the two.
func (st staging) with(id, target string, singleWriter bool) (staging, error) {
	other := slices.ContainsFunc(st.Targets, func(t string) bool { return t != target })
	if other && (singleWriter || st.SingleWriter) {
		return st, fmt.Errorf("%w: %s has a single writer and is published on %s",
			volume.ErrInUse, id, st.Targets[0])
	}
	if slices.Contains(st.Targets, target) {
		return st, nil
	}
	st.Targets = append(slices.Clone(st.Targets), target)
	st.SingleWriter = singleWriter
	return st, nil
}

// without removes a target.
func (st staging) without(target string) staging {
	return st.only(func(t string) bool { return t != target })
}

// only keeps the targets that the condition holds for.
func (st staging) only(condition func(target string) bool) staging {
	st.Targets = slices.DeleteFunc(slices.Clone(st.Targets), func(t string) bool { return !condition(t) })
	return st
}

// stagings are the records of all volumes in use, in memory and on disk. It is safe for concurrent use.
type stagings struct {
	store *durable.Store[staging]

	// mu guards byID.
	mu   sync.Mutex
	byID map[string]staging
}

// openStagings reads the records that were left. They are not in force before keep.
func openStagings(dir string) (
	s *stagings, left map[string]staging, unreadable []durable.Unreadable, err error,
) {
	s = &stagings{byID: map[string]staging{}}
	if s.store, err = durable.OpenStore[staging](dir, true); err != nil {
		return nil, nil, nil, fmt.Errorf("open staging records: %w", err)
	}
	if left, unreadable, err = s.store.List(); err != nil {
		return nil, nil, nil, fmt.Errorf("read staging records: %w", err)
	}
	return s, left, unreadable, nil
}

func (s *stagings) get(id string) (staging, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.byID[id]
	return st, ok
}

// ids returns the IDs of all volumes in use, sorted.
func (s *stagings) ids() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.byID))
}

// keep enters a record in memory alone.
func (s *stagings) keep(id string, st staging) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID[id] = st
}

func (s *stagings) put(id string, st staging) error {
	if err := s.store.Put(id, st); err != nil {
		return fmt.Errorf("record where volume %s is used: %w", id, err)
	}
	s.keep(id, st)
	return nil
}

func (s *stagings) remove(id string) error {
	if err := s.store.Delete(id); err != nil {
		return fmt.Errorf("remove the record of where volume %s was used: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, id)
	return nil
}

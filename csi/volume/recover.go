package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// atOnce volumes are worked on side by side where there may be thousands, and each costs some waiting.
const atOnce = 16

func (s *Service) recoverAll(records map[string]record, report *Report) {
	// guards report
	var mu sync.Mutex
	inParallel(slices.Sorted(maps.Keys(records)), func(id string) {
		s.recover(id, records[id], func(tell func(*Report)) {
			mu.Lock()
			defer mu.Unlock()
			tell(report)
		})
	})
}

func inParallel(ids []string, do func(id string)) {
	var group sync.WaitGroup
	next := make(chan string)
	for range min(atOnce, len(ids)) {
		group.Go(func() {
			for id := range next {
				do(id)
			}
		})
	}

	for _, id := range ids {
		next <- id
	}

	close(next)
	group.Wait()
}

// recover brings one recorded volume back, or finishes taking it away.
func (s *Service) recover(id string, r record, report func(func(*Report))) {
	backend := s.cfg.Backends[r.Spec.Backend]
	switch {
	case r.Version != recordVersion, r.Spec.ID != id, r.Spec.Size <= 0, !slices.Contains(phases, r.Phase):
		r.damage = fmt.Errorf("%w: its record has version %d, phase %q, id %q and size %d",
			ErrDamaged, r.Version, r.Phase, r.Spec.ID, r.Spec.Size)
	case backend == nil:
		r.damage = fmt.Errorf("%w: backend %q does not work on this node", ErrDamaged, r.Spec.Backend)
	case r.Phase == ready:
		r = s.bringBack(backend, r)
	default:
		if err := backend.Destroy(id); err != nil {
			r.damage = fmt.Errorf("finish %s: %w", r.Phase, err)
			break
		}

		doomed := r

		// the record goes after the commit
		doomed.Phase, doomed.damage = deleting, nil
		s.put(id, doomed)
		report(func(to *Report) {
			if r.Phase == making {
				to.Unmade = append(to.Unmade, id)
			} else {
				to.Deleted = append(to.Deleted, id)
			}
		})

		return
	}

	s.put(id, r)

	report(func(to *Report) {
		if r.damage != nil {
			to.Damaged[id] = r.damage
		} else {
			to.Recovered++
		}
	})
}

// bringBack makes a ready volume usable, or notes in the record why it is not.
func (s *Service) bringBack(backend Backend, r record) record {
	origin, err := backend.Recover(r.Spec, r.Origin)
	r.damage = err
	if err == nil && origin != r.Origin {
		r.Origin = origin

		// of an earlier version; where it fails, the next start does it
		_ = s.records.Update(r.Spec.ID, r)
	}
	return r
}

// recoverDamaged tries the volumes of one backend again that could not be used, or not be taken away.
func (s *Service) recoverDamaged(ctx context.Context, backend string) error {
	s.mu.Lock()
	var ids []string
	for id, r := range s.index {
		if r.Spec.Backend == backend && r.damage != nil {
			ids = append(ids, id)
		}
	}

	s.mu.Unlock()

	inParallel(ids, func(id string) {
		unlock, err := s.locks.Lock(ctx, id)
		if err != nil {
			return
		}
		defer unlock()

		if r, ok := s.peek(id); ok && r.damage != nil {
			s.recover(id, r, func(func(*Report)) {})
		}
	})

	err := s.cfg.Backends[backend].Commit()
	s.reap(ctx)
	return err
}

// clearStrays removes what a power loss left of a creation that nobody was told of. Data is never taken away
// because a record is missing, nor an empty volume because its record is torn.
func (s *Service) clearStrays(report *Report) {
	for name, backend := range s.cfg.Backends {
		ids, err := backend.List()
		if err != nil {
			report.Trouble[name] = fmt.Errorf("list volumes of backend %s: %w", name, err)
			continue
		}

		for _, id := range ids {
			if r, known := s.peek(id); known && r.Spec.Backend == name {
				continue
			}

			empty, err := backend.Empty(id)
			aside, asideErr := s.records.Quarantined(id)
			nobodys := errors.Join(err, asideErr) == nil && empty && len(aside) == 0
			if nobodys {
				err = backend.Destroy(id)
			}
			if err != nil || !nobodys {
				report.Strays = append(report.Strays, name+" "+id)
			}
		}
	}
}

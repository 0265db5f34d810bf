package volume

import (
	"context"
	"maps"
	"slices"
	"time"
)

// enforcePeriod is for how long a pod that looks for a way past its volume's size may find one.
const enforcePeriod = time.Second

func (s *Service) enforceUntil(ctx context.Context) {
	ticker := time.NewTicker(enforcePeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.enforce()
		}
	}
}

// enforce looks at all volumes in use. One that is being worked on, and one where it fails, are looked at
// again the next time.
func (s *Service) enforce() {
	s.mu.Lock()
	ids := slices.Collect(maps.Keys(s.stages))
	s.mu.Unlock()
	for _, id := range ids {
		unlock, free := s.locks.TryLock(id)
		if !free {
			continue
		}
		if r, err := s.find(id); err == nil && r.damage == nil {
			_ = s.cfg.Backends[r.Spec.Backend].Enforce(r.Spec)
		}

		unlock()
	}
}

// checkPeriod is how long trouble with a backend may go unnoticed, and how long it may last after its cause
// is gone.
const checkPeriod = 5 * time.Second

func (s *Service) checkUntil(ctx context.Context) {
	ticker := time.NewTicker(checkPeriod)
	defer ticker.Stop()
	for {
		s.check(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// check looks after what holds the volumes. When a backend works again, so do its volumes.
func (s *Service) check(ctx context.Context) {
	for name, backend := range s.cfg.Backends {
		err := backend.Check(s.idle(name))
		s.mu.Lock()
		before := s.trouble[name]
		s.mu.Unlock()
		if same(before, err) {
			continue
		}
		if err == nil {
			err = s.recoverDamaged(ctx, name)
		}

		s.tell(name, err)
		s.changed()
	}
}

func (s *Service) tell(backend string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble[backend] = err
	for _, f := range s.onTrouble {
		f(backend, err)
	}
}

func same(a, b error) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Error() == b.Error()
}

// idle reports whether no volume of the backend is in use.
func (s *Service) idle(backend string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.stages {
		if s.index[id].Spec.Backend == backend {
			return false
		}
	}
	return true
}

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

// enforce looks at all volumes in use. One that is being worked on, and one where it fails, are looked at again the next time.
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

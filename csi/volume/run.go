package volume

import (
	"context"
	"sync"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

const (
	// reapPause gathers deletions: a commit of a backend delays those who create and write at that moment.
	reapPause = 2 * time.Second

	// enforcePeriod is for how long a pod can exceed the size of its volume, if it finds a way to.
	enforcePeriod = time.Second

	// checkPeriod is how long trouble with a backend may stay unnoticed, and how long it may last after its
	// cause is gone.
	checkPeriod = 5 * time.Second
)

// Run finishes deletions, enforces sizes and checks backends until ctx ends, and returns when that work is
// done. It must not be called before all volumes in use are held.
func (s *Store) Run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()

	group.Go(func() {
		for range retry.Every(ctx, enforcePeriod) {
			s.enforce()
		}
	})

	group.Go(func() {
		for range retry.Every(ctx, checkPeriod) {
			s.check(ctx)
		}
	})

	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-s.destroyed:
			_ = retry.Sleep(ctx, reapPause)
		}

		s.reap(context.WithoutCancel(ctx))
	}
}

// reap removes the records of all destroyed volumes, after one commit for as many as there are.
func (s *Store) reap(ctx context.Context) {
	for name, backend := range s.backends.byName {
		ids := s.index.selected(func(r record) bool { return r.Spec.Backend == name && r.destroyed() })
		if len(ids) == 0 || backend.Commit() != nil {
			continue // the records stay; the next deletion or start tries again
		}

		// Side by side they share their syncs.
		inParallel(ids, func(id string) { s.forget(ctx, id) })
	}
}

// forget removes the record of a destroyed volume, unless one of the same name has been created meanwhile.
func (s *Store) forget(ctx context.Context, id string) {
	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return
	}
	defer unlock()
	if r, ok := s.index.get(id); ok && r.Phase == deleting && s.records.Delete(id) == nil {
		s.index.drop(id)
	}
}

// enforce looks at all volumes in use. One that is being worked on, and one where it fails, are looked at
// again the next time.
func (s *Store) enforce() {
	for _, r := range s.index.held() {
		enforcer, ok := s.backends.byName[r.Spec.Backend].(Enforcer)
		if !ok {
			continue
		}

		unlock, free := s.locks.TryLock(r.Spec.ID)
		if !free {
			continue
		}
		if r, err := s.find(r.Spec.ID); err == nil && r.damage == nil {
			_ = enforcer.Enforce(r.Spec)
		}

		unlock()
	}
}

// check looks after what holds the volumes. When a backend works again, so do its volumes. One that cannot
// fail as a whole may have failed at the start all the same, and is tried again.
func (s *Store) check(ctx context.Context) {
	for name, backend := range s.backends.byName {
		var err error
		if checker, ok := backend.(Checker); ok {
			err = checker.Check(s.idle(name))
		}
		if same(s.health.of(name), err) {
			continue
		}
		if err == nil {
			err = s.recoverDamaged(ctx, name)
		}

		s.health.set(name, err)
		s.changed()
	}
}

// idle reports whether no volume of the backend is in use.
func (s *Store) idle(backend string) bool {
	for _, r := range s.index.held() {
		if r.Spec.Backend == backend {
			return false
		}
	}
	return true
}

func same(a, b error) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Error() == b.Error()
}

// health is what is wrong with backends. It is safe for concurrent use.
type health struct {
	mu        sync.Mutex // guards what follows
	errs      map[string]error
	listeners []func(backend string, err error)
}

func newHealth() *health { return &health{errs: map[string]error{}} }

func (h *health) of(backend string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.errs[backend]
}

func (h *health) set(backend string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.errs[backend] = err
	for _, f := range h.listeners {
		f(backend, err)
	}
}

func (h *health) listen(f func(backend string, err error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listeners = append(h.listeners, f)
	for backend, err := range h.errs {
		if err != nil {
			f(backend, err)
		}
	}
}

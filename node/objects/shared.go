package objects

import (
	"context"
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// shared are watches that pods have in common, by what they watch: each runs while a pod needs it.
type shared[K comparable, W any] struct {
	// open makes a watch, and keep runs it until ctx ends.
	open func(key K) W
	keep func(ctx context.Context, key K, watch W)

	// mu guards ctx, uses and pods. ctx is that of run, nil while it does not run.
	mu   sync.Mutex
	ctx  context.Context
	uses map[K]*use[W]
	pods map[types.UID]map[K]bool

	following sync.WaitGroup
}

// use is a watch, who needs it, and what ends it.
type use[W any] struct {
	watch  W
	users  map[types.UID]bool
	cancel context.CancelFunc
}

// run runs the watches that pods need until ctx ends.
func (s *shared[K, W]) run(ctx context.Context) {
	s.mu.Lock()
	s.ctx = ctx
	for key, u := range s.uses {
		s.start(key, u)
	}
	s.mu.Unlock()

	<-ctx.Done()

	// No watch begins any more; those that have begun are ending.
	s.mu.Lock()
	s.ctx = nil
	s.mu.Unlock()
	s.following.Wait()
}

// register replaces what a pod needs; nothing takes the pod out.
func (s *shared[K, W]) register(pod types.UID, want map[K]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()

	have := s.pods[pod]
	for key := range want {
		if !have[key] {
			s.hold(key, pod)
		}
	}

	for key := range have {
		if !want[key] {
			s.release(key, pod)
		}
	}

	if len(want) == 0 {
		delete(s.pods, pod)
		return
	}

	if s.pods == nil {
		s.pods = map[types.UID]map[K]bool{}
	}
	s.pods[pod] = want
}

func (s *shared[K, W]) hold(key K, pod types.UID) {
	u := s.uses[key]
	if u == nil {
		u = &use[W]{watch: s.open(key), users: map[types.UID]bool{}}
		if s.uses == nil {
			s.uses = map[K]*use[W]{}
		}
		s.uses[key] = u
		s.start(key, u)
	}
	u.users[pod] = true
}

func (s *shared[K, W]) release(key K, pod types.UID) {
	u := s.uses[key]
	delete(u.users, pod)
	if len(u.users) > 0 {
		return
	}

	delete(s.uses, key)
	if u.cancel != nil {
		u.cancel()
	}
}

func (s *shared[K, W]) start(key K, u *use[W]) {
	if s.ctx == nil {
		return
	}

	ctx, cancel := context.WithCancel(s.ctx)
	u.cancel = cancel
	s.following.Go(func() {
		defer cancel()
		s.keep(ctx, key, u.watch)
	})
}

// find returns a watch that a pod needs.
func (s *shared[K, W]) find(key K) (watch W, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.uses[key]; u != nil {
		return u.watch, true
	}
	return watch, false
}

// users returns the pods that need a watch.
func (s *shared[K, W]) users(key K) []types.UID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.uses[key]; u != nil {
		return slices.Collect(maps.Keys(u.users))
	}
	return nil
}

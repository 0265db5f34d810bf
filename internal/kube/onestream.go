package kube

import (
	"context"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// oneStream returns what a reflector lists and watches by, and what stops its last watch. The reflector has
// one watch at a time, and does not stop it when Replace refuses the list that came with it: so it is stopped
// here, before the next request.
func (s *store) oneStream() (source *cache.ListWatch, stop func()) {
	one := &lastStream{}
	source = &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			one.set(nil)
			return s.list(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			one.set(nil)
			stream, err := s.watch(ctx, o)
			one.set(stream)
			return stream, err
		},
	}
	return source, func() { one.set(nil) }
}

// lastStream is the watch that a reflector has begun last, nil before the first one. It is safe for concurrent
// use: a list may still run when its reflector has ended.
type lastStream struct {
	// mu guards the rest.
	mu     sync.Mutex
	stream watch.Interface
}

// set stops the last watch, and takes the next one, which may be nil.
func (l *lastStream) set(next watch.Interface) {
	l.mu.Lock()
	last := l.stream
	l.stream = next
	l.mu.Unlock()
	if last != nil {
		last.Stop()
	}
}

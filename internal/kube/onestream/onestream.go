// Package onestream stops the watches that client-go's reflector forgets. It has one at a time, and does not
// stop it when its store refuses the list that came with it.
package onestream

import (
	"context"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// Of returns a source for one reflector that lists and watches as another one, and stops the last watch
// before each request. It also returns what stops it when the reflector has ended.
func Of(source cache.ListWatch) (one *cache.ListWatch, stop func()) {
	l := &last{}
	one = &cache.ListWatch{
		ListWithContextFunc: func(
			ctx context.Context, options metav1.ListOptions,
		) (runtime.Object, error) {
			l.set(nil)
			return source.ListWithContextFunc(ctx, options)
		},
		WatchFuncWithContext: func(
			ctx context.Context, options metav1.ListOptions,
		) (watch.Interface, error) {
			l.set(nil)
			stream, err := source.WatchFuncWithContext(ctx, options)
			l.set(stream)
			return stream, err
		},
	}
	return one, func() { l.set(nil) }
}

// last is the watch that was begun last. It is safe for concurrent use: a list may still run when its
// reflector has ended.
type last struct {
	// mu guards the rest.
	mu     sync.Mutex
	stream watch.Interface // nil if there is none
}

// set stops the last watch, and takes the next one, which may be nil.
func (l *last) set(next watch.Interface) {
	l.mu.Lock()
	before := l.stream
	l.stream = next
	l.mu.Unlock()
	if before != nil {
		before.Stop()
	}
}

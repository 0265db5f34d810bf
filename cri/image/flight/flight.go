// Package flight lets calls for the same key share one piece of work.
//
// It is not golang.org/x/sync/singleflight: there, the work cannot be cancelled when the last caller that
// waits for it has gone, and a pull that nobody wants any more must not go on.
package flight

import (
	"context"
	"sync"
)

// Group is a set of work by key. The work of a key goes on as long as one caller waits for it, and is
// cancelled when the last one has gone. The zero value is ready.
type Group[T any] struct {
	running sync.WaitGroup

	// mu guards open and the waiters of its flights.
	mu   sync.Mutex
	open map[string]*flight[T]
}

type flight[T any] struct {
	done    chan struct{} // closed after value and err are set
	value   T
	err     error
	waiters int
	cancel  context.CancelFunc
}

// Do runs work, or waits for the work that is under way for key; joined reports which. When ctx ends, Do
// returns its cause at once.
func (g *Group[T]) Do(
	ctx context.Context,
	key string,
	work func(context.Context) (T, error),
) (value T, joined bool, err error) {
	f, joined := g.join(ctx, key, work)

	select {
	case <-f.done:
		return f.value, joined, f.err
	case <-ctx.Done():
		g.leave(key, f)
		return value, joined, context.Cause(ctx)
	}
}

// join adds a waiter to the flight of key, which it starts if there is none.
func (g *Group[T]) join(
	ctx context.Context,
	key string,
	work func(context.Context) (T, error),
) (f *flight[T], joined bool) {
	g.mu.Lock()
	defer g.mu.Unlock()

	if f := g.open[key]; f != nil {
		f.waiters++
		return f, true
	}

	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f = &flight[T]{done: make(chan struct{}), waiters: 1, cancel: cancel}
	if g.open == nil {
		g.open = make(map[string]*flight[T])
	}

	g.open[key] = f
	g.running.Go(func() { g.run(inner, key, f, work) })
	return f, false
}

func (g *Group[T]) run(ctx context.Context, key string, f *flight[T], work func(context.Context) (T, error)) {
	f.value, f.err = work(ctx)
	g.mu.Lock()
	g.close(key, f)
	g.mu.Unlock()
	f.cancel()
	close(f.done)
}

// leave removes a waiter. A flight that nobody waits for is cancelled, and is not joined any more.
func (g *Group[T]) leave(key string, f *flight[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f.waiters--
	if f.waiters == 0 {
		g.close(key, f)
		f.cancel()
	}
}

// close needs g.mu. The next caller for the key starts a flight of its own.
func (g *Group[T]) close(key string, f *flight[T]) {
	if g.open[key] == f {
		delete(g.open, key)
	}
}

// Wait waits until no work runs, even work that was cancelled.
func (g *Group[T]) Wait() { g.running.Wait() }

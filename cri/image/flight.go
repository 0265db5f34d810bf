package image

import (
	"context"
	"sync"
)

// flights lets calls for the same key share one piece of work. The work goes on as long as one caller waits
// for it, and is cancelled when the last one has gone. The zero value is ready.
type flights[T any] struct {
	running sync.WaitGroup

	mu   sync.Mutex // guards open and the waiters of its flights
	open map[string]*flight[T]
}

type flight[T any] struct {
	done    chan struct{} // closed after value and err are set
	value   T
	err     error
	waiters int
	cancel  context.CancelFunc
}

// do runs work, or joins the one in the air for key; joined tells which.
func (f *flights[T]) do(
	ctx context.Context,
	key string,
	work func(context.Context) (T, error),
) (value T, joined bool, err error) {
	f.mu.Lock()
	if f.open == nil {
		f.open = make(map[string]*flight[T])
	}

	fl := f.open[key]
	joined = fl != nil
	if !joined {
		inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
		fl = &flight[T]{done: make(chan struct{}), cancel: cancel}
		f.open[key] = fl
		f.running.Go(func() { f.run(inner, key, fl, work) })
	}

	fl.waiters++
	f.mu.Unlock()

	select {
	case <-fl.done:
		return fl.value, joined, fl.err
	case <-ctx.Done():
		f.leave(key, fl)
		return value, joined, context.Cause(ctx)
	}
}

func (f *flights[T]) run(
	ctx context.Context,
	key string,
	fl *flight[T],
	work func(context.Context) (T, error),
) {
	fl.value, fl.err = work(ctx)
	f.mu.Lock()
	if f.open[key] == fl {
		delete(f.open, key)
	}
	f.mu.Unlock()
	fl.cancel()
	close(fl.done)
}

// leave takes one waiter away. A flight that nobody waits for is not joined any more: it is on its way down.
func (f *flights[T]) leave(key string, fl *flight[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.waiters--; fl.waiters == 0 {
		if f.open[key] == fl {
			delete(f.open, key)
		}
		fl.cancel()
	}
}

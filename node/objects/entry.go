package objects

import (
	"context"
	"sync"
)

// entry is one object that is followed.
type entry[T any] struct {
	// answered is closed when the server has answered for the first time.
	answered chan struct{}

	// mu guards what follows.
	mu sync.Mutex
	// known: the server has answered, and object is what it said, nil if there is none.
	known   bool
	object  *T
	version string
	// err is why the server gives no answer, such as forbidden. A later answer clears it.
	err error
	// tried is closed and replaced at each failed attempt.
	tried chan struct{}
}

func newEntry[T any]() *entry[T] {
	return &entry[T]{
		answered: make(chan struct{}),
		tried:    make(chan struct{}),
	}
}

// wait returns the object, nil when there is none, once the server has answered. A failing server is an error
// at once: the caller retries with its own back-off, and is notified when the answer comes.
func (e *entry[T]) wait(ctx context.Context) (*T, error) {
	e.mu.Lock()
	if e.known || e.err != nil {
		defer e.mu.Unlock()
		return e.object, e.err
	}

	tried := e.tried
	e.mu.Unlock()

	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-e.answered:
	case <-tried:
	}

	e.mu.Lock()
	defer e.mu.Unlock()
	return e.object, e.err
}

// set records what the server says: the object and its resource version, which a recreated object changes as
// well, or nil and "". It reports whether callers of wait were given something else. The first answer is what
// they wait for, so that it differs only if they were given an error in its place.
func (e *entry[T]) set(object *T, version string) (differs bool) {
	e.mu.Lock()
	defer e.mu.Unlock()

	differs = e.err != nil || e.known && version != e.version
	e.object, e.version = object, version
	e.err = nil
	if !e.known {
		e.known = true
		close(e.answered)
	}

	return differs
}

// fail records why the server gives no answer. What was known stays good while the server is away.
func (e *entry[T]) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()

	if e.known {
		return
	}

	e.err = err
	close(e.tried)
	e.tried = make(chan struct{})
}

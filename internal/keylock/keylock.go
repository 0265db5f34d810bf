// Package keylock has a lock for each key: operations on different keys never wait for each other, those on
// one key run one after the other.
package keylock

import (
	"context"
	"sync"
)

// Locks is a set of locks by key. The zero value is ready for use. A key that nobody holds or waits for takes
// no memory.
type Locks[K comparable] struct {
	// mu guards held.
	mu   sync.Mutex
	held map[K]*entry
}

// entry is the lock of one key.
type entry struct {
	token chan struct{} // holds one value while the lock is free
	users int           // holders and waiters
}

// Lock waits until the key is free or ctx ends. The returned function unlocks and must be called once.
func (l *Locks[K]) Lock(ctx context.Context, key K) (unlock func(), err error) {
	e := l.join(key)
	select {
	case <-e.token:
		return l.unlocker(key, e), nil
	case <-ctx.Done():
		l.leave(key, e)
		return nil, context.Cause(ctx)
	}
}

// TryLock takes the lock only if it is free. It does not wait.
func (l *Locks[K]) TryLock(key K) (unlock func(), ok bool) {
	e := l.join(key)
	select {
	case <-e.token:
		return l.unlocker(key, e), true
	default:
		l.leave(key, e)
		return nil, false
	}
}

// unlocker returns the function that frees a lock.
func (l *Locks[K]) unlocker(key K, e *entry) func() {
	return func() {
		e.token <- struct{}{}
		l.leave(key, e)
	}
}

// join makes the caller a user of a key's entry, which leave undoes.
func (l *Locks[K]) join(key K) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.held == nil {
		l.held = make(map[K]*entry)
	}

	e := l.held[key]
	if e == nil {
		e = &entry{token: make(chan struct{}, 1)}
		e.token <- struct{}{}
		l.held[key] = e
	}

	e.users++
	return e
}

func (l *Locks[K]) leave(key K, e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.users--; e.users == 0 {
		delete(l.held, key)
	}
}

package auth

import (
	"sync"
	"time"
)

// maxEntries bounds a cache; a caller with many tokens must not fill the memory.
const maxEntries = 4096

// cache keeps answers until they end. The zero value is ready.
type cache[T any] struct {
	mu      sync.Mutex
	entries map[[32]byte]cached[T]
}

type cached[T any] struct {
	value T
	ends  time.Time
}

func (c *cache[T]) get(key [32]byte, now time.Time) (T, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok || !now.Before(e.ends) {
		delete(c.entries, key)
		var none T
		return none, false
	}
	return e.value, true
}

func (c *cache[T]) put(key [32]byte, value T, ends, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()

	if c.entries == nil {
		c.entries = map[[32]byte]cached[T]{}
	}

	if len(c.entries) >= maxEntries {
		for k, e := range c.entries {
			if !now.Before(e.ends) {
				delete(c.entries, k)
			}
		}
	}

	if len(c.entries) >= maxEntries {
		clear(c.entries)
	}

	c.entries[key] = cached[T]{value, ends}
}

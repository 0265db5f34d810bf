// Package refusal remembers what a driver has refused to an object of the API, so that it is not asked for
// the same again at once. It is the memory of one process: another asks once more.
package refusal

import (
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Refusal is what an object was refused, and until when it is not asked for again. The zero value is none.
type Refusal[T comparable] struct {
	What  T
	Until time.Time
}

// Left returns how long what is not asked for yet: 0 if that, or anything else, may be asked for now.
func (r Refusal[T]) Left(what T, now time.Time) time.Duration {
	if r.What != what {
		return 0
	}
	return max(r.Until.Sub(now), 0)
}

// Refusals are the last ones of objects, by their UIDs. The zero value has none and is ready for use, by
// several goroutines at once.
type Refusals[T comparable] struct {
	// mu guards last.
	mu   sync.Mutex
	last map[types.UID]Refusal[T]
}

// Add remembers a refusal in place of an earlier one of the same object, and forgets all that are over.
func (r *Refusals[T]) Add(uid types.UID, what T, now time.Time, pause time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()

	maps.DeleteFunc(r.last, func(_ types.UID, old Refusal[T]) bool { return !old.Until.After(now) })
	if r.last == nil {
		r.last = map[types.UID]Refusal[T]{}
	}

	r.last[uid] = Refusal[T]{What: what, Until: now.Add(pause)}
}

// Of returns the last refusal of an object, which may be over.
func (r *Refusals[T]) Of(uid types.UID) Refusal[T] {
	r.mu.Lock()
	defer r.mu.Unlock()

	return r.last[uid]
}

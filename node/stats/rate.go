package stats

import (
	"sync"
	"time"
)

// rates computes means between readings of counters.
type rates struct {
	mu   sync.Mutex
	last map[string]reading // by name
}

// reading is the value of a counter at a time.
type reading struct {
	at    time.Time
	total uint64
}

// maxReadings bounds what is remembered: readings of pods that are gone would stay otherwise.
const maxReadings = 2048

// since returns the mean per second, in the unit of the counter, since the last reading of that name; nil for
// the first one, and when the counter was reset.
func (r *rates) since(name string, now reading) *uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()

	before, known := r.last[name]
	if r.last == nil || len(r.last) > maxReadings {
		r.last = map[string]reading{}
	}

	r.last[name] = now

	elapsed := now.at.Sub(before.at)
	if !known || elapsed <= 0 || now.total < before.total {
		return nil
	}

	return new(uint64(float64(now.total-before.total) / elapsed.Seconds()))
}

package localstorage

import "time"

// Age makes it longer ago that pods have run.
func (m *Meter) Age(by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for uid, k := range m.known {
		k.since = k.since.Add(-by)
		m.known[uid] = k
	}
}

// Due is due, for tests.
var Due = due

package event

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// memory is what a recorder remembers of the events that it has sent. One goroutine uses it.
type memory struct {
	sent map[statement]*corev1.Event
}

// statement is what two events have in common that differ in their time only.
type statement struct {
	uid     types.UID
	path    string
	kind    string
	reason  string
	message string
}

func newMemory() *memory { return &memory{sent: map[statement]*corev1.Event{}} }

func statementOf(e *corev1.Event) statement {
	return statement{
		uid:     e.InvolvedObject.UID,
		path:    e.InvolvedObject.FieldPath,
		kind:    e.Type,
		reason:  e.Reason,
		message: e.Message,
	}
}

// repeats returns the event that has said the same before, nil if there is none.
func (m *memory) repeats(e *corev1.Event) *corev1.Event { return m.sent[statementOf(e)] }

func (m *memory) add(e *corev1.Event) { m.sent[statementOf(e)] = e }

// tidy forgets events that were not repeated for long.
func (m *memory) tidy(now time.Time) {
	for s, e := range m.sent {
		if now.Sub(e.LastTimestamp.Time) > rememberFor {
			delete(m.sent, s)
		}
	}
}

// rations are how many events each object may still have. The zero value is ready.
type rations struct {
	// mu guards of: the rations by the UIDs of the objects.
	mu sync.Mutex
	of map[types.UID]*ration
}

// ration is how many events of an object have been used up, and when some were given back last.
type ration struct {
	used int
	last time.Time
}

// allow reports whether an object may have one more event, and counts it.
func (s *rations) allow(uid types.UID, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	r := s.of[uid]
	if r == nil {
		if s.of == nil {
			s.of = map[types.UID]*ration{}
		}

		r = &ration{last: now}
		s.of[uid] = r
	}

	if back := int(now.Sub(r.last) / refill); back > 0 {
		r.used = max(r.used-back, 0)
		r.last = now
	}

	if r.used >= burst {
		return false
	}

	r.used++
	return true
}

// tidy forgets rations that are whole again.
func (s *rations) tidy(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for uid, r := range s.of {
		if now.Sub(r.last) > burst*refill {
			delete(s.of, uid)
		}
	}
}

package event

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// memory is what a recorder remembers of the events that it has sent. One goroutine uses it.
type memory struct {
	sent    map[statement]*corev1.Event
	rations map[types.UID]*ration // by the UID of the object
}

// statement is what two events have in common that differ in their time only.
type statement struct {
	uid     types.UID
	path    string
	kind    string
	reason  string
	message string
}

// ration is how many events of an object have been used up, and when some were given back last.
type ration struct {
	used int
	last time.Time
}

func newMemory() *memory {
	return &memory{sent: map[statement]*corev1.Event{}, rations: map[types.UID]*ration{}}
}

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

// allows reports whether an object may have one more event, and counts it.
func (m *memory) allows(uid types.UID, now time.Time) bool {
	r := m.rations[uid]
	if r == nil {
		r = &ration{last: now}
		m.rations[uid] = r
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

// tidy forgets events that were not repeated for long, and rations that are whole again.
func (m *memory) tidy(now time.Time) {
	for s, e := range m.sent {
		if now.Sub(e.LastTimestamp.Time) > rememberFor {
			delete(m.sent, s)
		}
	}
	for uid, r := range m.rations {
		if now.Sub(r.last) > burst*refill {
			delete(m.rations, uid)
		}
	}
}

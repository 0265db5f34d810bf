// Package event hands the changes of pod sandboxes and containers on to clients that follow them (CRI's
// GetContainerEvents). Events are made where a record changes (cri/sandbox, cri/container) and nowhere else.
package event

import (
	"sync"
	"time"
)

// Type is what has changed. The numbers are those of CRI's ContainerEventType.
type Type int

// Types of events.
const (
	Created Type = iota
	Started
	Stopped
	Deleted
)

// Event is a change of a container or of a pod sandbox.
type Event struct {
	// ID is that of the container. An event of a sandbox has the sandbox's ID here, too.
	ID string

	Sandbox string
	Type    Type
	At      time.Time
}

// Buffer is how many events a subscriber may be behind.
const Buffer = 1024

// Hub hands each event on to all subscribers. It may be used by many goroutines; its zero value is ready.
type Hub struct {
	mu          sync.Mutex // guards subscribers
	subscribers map[chan Event]bool
}

// Publish hands an event on, in the order of the calls, and never waits: the channel of a subscriber that is
// more than Buffer events behind is closed.
func (h *Hub) Publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ch := range h.subscribers {
		select {
		case ch <- e:
		default:
			delete(h.subscribers, ch)
			close(ch)
		}
	}
}

// Subscribe returns the events from now on. cancel must be called when nobody reads them any more; it does
// not close the channel. A channel that is closed has lost events, so its reader has to list everything.
func (h *Hub) Subscribe() (events <-chan Event, cancel func()) {
	ch := make(chan Event, Buffer)
	h.mu.Lock()
	defer h.mu.Unlock()

	if h.subscribers == nil {
		h.subscribers = map[chan Event]bool{}
	}

	h.subscribers[ch] = true

	return ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()

		delete(h.subscribers, ch)
	}
}

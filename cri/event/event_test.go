package event_test

import (
	"fmt"
	"testing"

	"github.com/trivet-node/trivet/cri/event"
)

func TestEverySubscriberGetsTheEventsInOrder(t *testing.T) {
	var hub event.Hub
	hub.Publish(event.Event{ID: "before anybody subscribed"})
	first, cancelFirst := hub.Subscribe()
	second, cancelSecond := hub.Subscribe()
	defer cancelSecond()

	hub.Publish(event.Event{ID: "a"})
	hub.Publish(event.Event{ID: "b"})
	cancelFirst()
	hub.Publish(event.Event{ID: "c"})

	for name, want := range map[string][]string{"first": {"a", "b"}, "second": {"a", "b", "c"}} {
		events := first
		if name == "second" {
			events = second
		}
		if len(events) != len(want) {
			t.Fatalf("%s has %d events, want %q", name, len(events), want)
		}

		for _, id := range want {
			if e := <-events; e.ID != id {
				t.Errorf("%s got %s, want %s", name, e.ID, id)
			}
		}
	}
}

// A client that does not read must not stop containers from being run.
func TestSubscriberThatDoesNotReadIsCutOffAndKnowsIt(t *testing.T) {
	var hub event.Hub
	slow, cancelSlow := hub.Subscribe()
	defer cancelSlow()

	quick, cancelQuick := hub.Subscribe()
	defer cancelQuick()

	const more = event.Buffer + 10
	for i := range more {
		hub.Publish(event.Event{ID: fmt.Sprint(i)})
		if e, open := <-quick; !open || e.ID != fmt.Sprint(i) {
			t.Fatalf("the one who reads got %q, %t", e.ID, open)
		}
	}

	got := 0
	for range slow {
		got++
	}

	if got != event.Buffer {
		t.Errorf("the slow one got %d events before its channel was closed, want %d", got, event.Buffer)
	}
}

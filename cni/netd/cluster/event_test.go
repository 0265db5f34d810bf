package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
)

// sink keeps the Events that are created. An Event of a name exists once.
type sink map[string]*corev1.Event

func (s sink) Create(_ context.Context, e *corev1.Event) (*corev1.Event, error) {
	if s[e.Name] != nil {
		return nil, apierrors.NewAlreadyExists(schema.GroupResource{Resource: "events"}, e.Name)
	}
	s[e.Name] = e
	return e, nil
}

func refusal(node string) podcidr.Refusal {
	return podcidr.Refusal{
		Node: podcidr.Node{Name: node, UID: "uid-" + node},
		CIDR: netip.MustParsePrefix("8.0.0.0/8"),
		Why:  "it is a test",
	}
}

func TestARefusalIsRecordedOnceByAllNodesTogether(t *testing.T) {
	stored := sink{}
	now := time.Unix(1e9, 0)
	for range 3 {
		e := newEvents(stored, slog.New(slog.DiscardHandler))
		e.write(t.Context(), []podcidr.Refusal{refusal("a"), refusal("b")}, now)
		e.write(t.Context(), []podcidr.Refusal{refusal("a")}, now.Add(time.Minute))
	}

	if len(stored) != 2 {
		t.Errorf("%d Events", len(stored))
	}

	for _, e := range stored {
		if e.Namespace != "default" || e.Reason != "FailedPodCIDR" || e.Type != corev1.EventTypeWarning ||
			string(e.InvolvedObject.UID) != "uid-"+e.InvolvedObject.Name {
			t.Errorf("%+v", e)
		}
	}
}

// The API server deletes an Event after an hour.
func TestARefusalThatStandsIsRecordedAgainWhenItsEventHasGone(t *testing.T) {
	stored := sink{}
	e := newEvents(stored, slog.New(slog.DiscardHandler))
	now := time.Unix(1e9, 0)
	e.write(t.Context(), []podcidr.Refusal{refusal("a")}, now)
	clear(stored)
	e.write(t.Context(), []podcidr.Refusal{refusal("a")}, now.Add(eventLife))
	if len(stored) != 0 {
		t.Error("the Event is written again while the API server has it")
	}

	e.write(t.Context(), []podcidr.Refusal{refusal("a")}, now.Add(eventLife+time.Second))
	if len(stored) != 1 {
		t.Error("the Event is not written again")
	}
}

func TestTheEventsOfAnHourAreBounded(t *testing.T) {
	stored := sink{}
	e := newEvents(stored, slog.New(slog.DiscardHandler))
	var all []podcidr.Refusal
	for i := range 2 * maxEvents {
		all = append(all, refusal(fmt.Sprint(i)))
	}
	e.write(t.Context(), all, time.Unix(1e9, 0))
	if len(stored) != maxEvents {
		t.Errorf("%d Events", len(stored))
	}
}

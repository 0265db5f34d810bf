package podtrace

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/trace/receiver"
	"github.com/trivet-node/trivet/internal/trace/tracetest"
)

func pod(phase v1.PodPhase) *v1.Pod {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u"}}
	pod.Status.Phase = phase
	return pod
}

func withReady(status v1.ConditionStatus) *v1.PodStatus {
	return &v1.PodStatus{
		Phase:      v1.PodRunning,
		Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: status}},
	}
}

func names(spans []receiver.Span) []string {
	var out []string
	for _, s := range spans {
		out = append(out, s.Name)
	}
	return out
}

func TestAStartEndsWhenTheAPIShowsThatThePodIsReady(t *testing.T) {
	provider, sent := tracetest.New(t)
	var trace Trace
	trace.See(provider, pod(v1.PodPending), time.Now())

	_, ended := trace.Begin(t.Context(), "Start", "app")
	ended(errors.New("no such command"))
	trace.Shown(withReady(v1.ConditionFalse))
	_, ended = trace.Begin(t.Context(), "Start", "app")
	ended(nil)
	trace.Shown(withReady(v1.ConditionTrue))

	// Restarts of its containers are no part of it any more, and neither are later looks.
	trace.See(provider, pod(v1.PodRunning), time.Now())
	ctx, ended := trace.Begin(t.Context(), "Start", "app")
	ended(nil)
	if ctx != t.Context() {
		t.Error("work after the start is traced")
	}

	spans := sent()
	if got := names(spans); !slices.Equal(got, []string{Start, "Start", "Start"}) {
		t.Fatalf("spans %q", got)
	}

	root, first, second := spans[0], spans[1], spans[2]
	if root.Attributes["k8s.pod.uid"] != "u" || root.Attributes["k8s.namespace.name"] != "shop" {
		t.Errorf("attributes %v", root.Attributes)
	}

	if first.Parent != root.ID || first.Failure == "" || second.Failure != "" ||
		second.Attributes["k8s.container.name"] != "app" {
		t.Errorf("steps %+v, %+v", first, second)
	}
}

func TestAnEndTakesTheStartsPlaceAndEndsWithThePod(t *testing.T) {
	provider, sent := tracetest.New(t)
	var trace Trace
	trace.See(provider, pod(v1.PodPending), time.Now())

	deleted := pod(v1.PodPending)
	deleted.DeletionTimestamp = new(metav1.Now())
	for range 2 {
		trace.See(provider, deleted, time.Now())
	}

	_, ended := trace.Begin(t.Context(), "StopSandbox", "")
	ended(nil)
	trace.Shown(withReady(v1.ConditionTrue))
	_, ended = trace.Begin(t.Context(), "Teardown", "")
	ended(nil)
	trace.Gone()

	spans := sent()
	if got := names(spans); !slices.Equal(got, []string{Start, End, "StopSandbox", "Teardown"}) {
		t.Fatalf("spans %q", got)
	}
	if spans[0].Trace == spans[1].Trace || spans[3].Parent != spans[1].ID {
		t.Errorf("%+v", spans)
	}
}

func TestAPodThatRunsWhenTheAgentStartsHasNoStart(t *testing.T) {
	provider, sent := tracetest.New(t)
	var trace Trace
	trace.See(provider, pod(v1.PodRunning), time.Now())
	_, ended := trace.Begin(t.Context(), "Prepare", "")
	ended(nil)
	if spans := sent(); len(spans) > 0 {
		t.Errorf("%+v", spans)
	}
}

func TestWithoutAProviderNothingIsTraced(t *testing.T) {
	var trace Trace
	trace.See(nil, pod(v1.PodPending), time.Now())
	ctx, ended := trace.Begin(context.Background(), "Prepare", "")
	ended(nil)
	trace.Shown(withReady(v1.ConditionTrue))
	trace.Gone()
	if ctx != context.Background() {
		t.Error("the context has changed")
	}
}

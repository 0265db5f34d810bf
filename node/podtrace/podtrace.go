// Package podtrace follows one pod by two traces: its start, from when the agent sees it first until the API
// shows that it is Ready, and its end, from when the agent sees the deletion until nothing is left. What is
// done for the pod meanwhile, here and in the programs that are called, is below them.
package podtrace

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/trace"
)

// Names of the first spans.
const (
	Start = "pod start"
	End   = "pod end"
)

// Trace is of one pod. The zero value is ready for use.
type Trace struct {
	mu sync.Mutex

	// span is the one that goes on, of the start or of the end; nil: neither is traced now.
	span *trace.Span

	// starting and ending say which of the two traces have been begun. Each is begun once.
	starting bool
	ending   bool
}

// See takes the pod as a look that began at a time finds it, and begins the trace that is due. A pod that is
// past its start when it is seen first, as after a restart of the agent, has no trace of the start.
func (t *Trace) See(provider *trace.Provider, pod *v1.Pod, began time.Time) {
	if provider == nil {
		return
	}

	t.mu.Lock()
	defer t.mu.Unlock()

	switch {
	case pod.DeletionTimestamp != nil && !t.ending:
		t.ending = true
		t.span.End(nil)
		t.span = provider.Root(End, began, attributes(pod)...)

	case pod.DeletionTimestamp == nil && !t.starting:
		t.starting = true
		if pod.Status.Phase == v1.PodPending || pod.Status.Phase == "" {
			t.span = provider.Root(Start, began, attributes(pod)...)
		}
	}
}

// attributes name the pod, by OpenTelemetry's conventions for Kubernetes.
func attributes(pod *v1.Pod) []trace.Attribute {
	return []trace.Attribute{
		{Key: "k8s.namespace.name", Value: pod.Namespace},
		{Key: "k8s.pod.name", Value: pod.Name},
		{Key: "k8s.pod.uid", Value: string(pod.UID)},
	}
}

// Begin begins a span of work for the pod and returns what ends it. container is empty for work that is for
// the whole pod.
func (t *Trace) Begin(ctx context.Context, work, container string) (context.Context, func(error)) {
	t.mu.Lock()
	span := t.span
	t.mu.Unlock()

	if span == nil {
		return ctx, func(error) {}
	}

	var of []trace.Attribute
	if container != "" {
		of = []trace.Attribute{{Key: "k8s.container.name", Value: container}}
	}

	ctx, below := trace.Begin(span.Under(ctx), work, of...)
	return ctx, below.End
}

// Shown takes the status that the API shows now. The start has ended when it is Ready, or when the pod has
// ended instead.
func (t *Trace) Shown(status *v1.PodStatus) {
	ended := status.Phase == v1.PodSucceeded || status.Phase == v1.PodFailed
	if !ended && !isReady(status) {
		return
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ending {
		t.span.End(nil)
		t.span = nil
	}
}

func isReady(status *v1.PodStatus) bool {
	for _, c := range status.Conditions {
		if c.Type == v1.PodReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

// Gone ends the trace: nothing is left of the pod.
func (t *Trace) Gone() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.span.End(nil)
	t.span = nil
}

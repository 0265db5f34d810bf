// Package event tells users what the agent does with their pods, as Event objects with kubelet's reasons.
// Recording never blocks and never fails the caller: events are sent by one goroutine from a bounded queue;
// repeated ones raise a count; a pod that is noisy is rationed.
package event

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Sink is where events go: the API server.
type Sink interface {
	Create(ctx context.Context, e *v1.Event) error
	Patch(ctx context.Context, namespace, name string, patch []byte) error
}

// Bounds: as kubelet's event recorder, 25 events for an object at once and one more every five minutes.
const (
	queueSize   = 1024
	burst       = 25
	refill      = 5 * time.Minute
	rememberFor = 10 * time.Minute
	sendTimeout = 10 * time.Second
)

// Recorder records events of the agent on one node.
type Recorder struct {
	sink    Sink
	node    string
	log     *slog.Logger
	queue   chan *v1.Event
	dropped atomic.Int64
	pace    *rate.Limiter // of all events together; nil: none
}

// New returns a recorder; events are sent while Run runs.
func New(sink Sink, node string, log *slog.Logger) *Recorder {
	return &Recorder{
		sink:  sink,
		node:  node,
		log:   log,
		queue: make(chan *v1.Event, queueSize),
	}
}

// Limit bounds how many events are sent in a second, and at once; zero is no limit. It is called before Run.
func (r *Recorder) Limit(perSecond, atOnce int) {
	if perSecond > 0 {
		r.pace = rate.NewLimiter(rate.Limit(perSecond), max(atOnce, 1))
	}
}

// Pod records an event about a pod or, when container is not empty, about one of its containers.
func (r *Recorder) Pod(pod *v1.Pod, container, kind, reason, message string) {
	ref := v1.ObjectReference{
		Kind:            "Pod",
		APIVersion:      "v1",
		Namespace:       pod.Namespace,
		Name:            pod.Name,
		UID:             pod.UID,
		ResourceVersion: pod.ResourceVersion,
	}
	if container != "" {
		ref.FieldPath = fieldPath(pod, container)
	}

	r.add(ref, kind, reason, message)
}

func fieldPath(pod *v1.Pod, container string) string {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == container {
			return "spec.initContainers{" + container + "}"
		}
	}
	for _, c := range pod.Spec.EphemeralContainers {
		if c.Name == container {
			return "spec.ephemeralContainers{" + container + "}"
		}
	}
	return "spec.containers{" + container + "}"
}

// Node records an event about the node.
func (r *Recorder) Node(kind, reason, message string) {
	r.add(v1.ObjectReference{
		Kind:       "Node",
		APIVersion: "v1",
		Name:       r.node,
		UID:        types.UID(r.node),
	}, kind, reason, message)
}

const maxText = 1024 // the API refuses longer messages

func (r *Recorder) add(ref v1.ObjectReference, kind, reason, message string) {
	now := metav1.Now()
	namespace := ref.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	if len(message) > maxText {
		message = message[:maxText-3] + "..."
	}

	e := &v1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      fmt.Sprintf("%s.%x", ref.Name, now.UnixNano()),
		},
		InvolvedObject:      ref,
		Type:                kind,
		Reason:              reason,
		Message:             message,
		FirstTimestamp:      now,
		LastTimestamp:       now,
		Count:               1,
		Source:              v1.EventSource{Component: "kubelet", Host: r.node},
		ReportingController: "kubelet",
		ReportingInstance:   r.node,
	}

	select {
	case r.queue <- e:
	default:
		r.dropped.Add(1)
	}
}

type key struct {
	uid                         types.UID
	path, kind, reason, message string
}

type known struct {
	event *v1.Event
	last  time.Time
}

type ration struct {
	used int
	last time.Time
}

// Run sends events until ctx ends.
func (r *Recorder) Run(ctx context.Context) {
	seen, rations := map[key]*known{}, map[types.UID]*ration{}
	tidy := time.NewTicker(rememberFor)
	defer tidy.Stop()

	for {
		select {
		case <-ctx.Done():
			return
		case <-tidy.C:
			for k, v := range seen {
				if time.Since(v.last) > rememberFor {
					delete(seen, k)
				}
			}

			for uid, q := range rations {
				if time.Since(q.last) > burst*refill {
					delete(rations, uid)
				}
			}

			if n := r.dropped.Swap(0); n > 0 {
				r.log.Warn("events dropped: the queue was full", "count", n)
			}

		case e := <-r.queue:
			if !allowed(rations, e.InvolvedObject.UID) {
				continue
			}

			if r.pace != nil && r.pace.Wait(ctx) != nil {
				// ctx has ended
				return
			}

			r.send(ctx, seen, e)
		}
	}
}

func allowed(rations map[types.UID]*ration, uid types.UID) bool {
	q := rations[uid]
	if q == nil {
		q = &ration{last: time.Now()}
		rations[uid] = q
	}

	if back := int(time.Since(q.last) / refill); back > 0 {
		q.used = max(q.used-back, 0)
		q.last = time.Now()
	}

	if q.used >= burst {
		return false
	}

	q.used++
	return true
}

func (r *Recorder) send(ctx context.Context, seen map[key]*known, e *v1.Event) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()

	k := key{e.InvolvedObject.UID, e.InvolvedObject.FieldPath, e.Type, e.Reason, e.Message}
	if old := seen[k]; old != nil {
		old.event.Count++
		old.last = time.Now()
		patch, err := json.Marshal(map[string]any{"count": old.event.Count, "lastTimestamp": e.LastTimestamp})
		if err == nil {
			err = r.sink.Patch(ctx, old.event.Namespace, old.event.Name, patch)
		}

		if !apierrors.IsNotFound(err) {
			r.report(e, err)
			return
		}

		e.Count, e.FirstTimestamp = old.event.Count, old.event.FirstTimestamp
	}

	err := r.sink.Create(ctx, e)
	if err == nil {
		seen[k] = &known{event: e, last: time.Now()}
	}

	r.report(e, err)
}

// report: an event that cannot be stored is not worth more than a line; most often its namespace is going
// away.
func (r *Recorder) report(e *v1.Event, err error) {
	if err != nil {
		r.log.Debug("event not stored",
			"reason", e.Reason, "object", e.InvolvedObject.Namespace+"/"+e.InvolvedObject.Name, "err", err)
	}
}

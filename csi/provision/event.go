package provision

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// eventSink is the API server.
type eventSink interface {
	CreateEvent(ctx context.Context, e *corev1.Event) error
	PatchEvent(ctx context.Context, namespace, name string, patch []byte) error
}

const (
	eventQueue   = 1024
	eventMemory  = 10 * time.Minute // a repetition within this time raises a count
	eventTimeout = 10 * time.Second
	eventText    = 1024 // the API refuses longer messages
)

// recorder tells users about their claims and volumes. It never blocks: one goroutine sends, and what it
// cannot keep up with is dropped.
type recorder struct {
	sink   eventSink
	source string
	log    *slog.Logger
	queue  chan *corev1.Event
}

func newRecorder(sink eventSink, source string, log *slog.Logger) *recorder {
	return &recorder{
		sink:   sink,
		source: source,
		log:    log,
		queue:  make(chan *corev1.Event, eventQueue),
	}
}

func (r *recorder) claim(c *corev1.PersistentVolumeClaim, kind, reason, format string, args ...any) {
	r.add("PersistentVolumeClaim", &c.ObjectMeta, kind, reason, fmt.Sprintf(format, args...))
}

func (r *recorder) volume(pv *corev1.PersistentVolume, kind, reason, format string, args ...any) {
	r.add("PersistentVolume", &pv.ObjectMeta, kind, reason, fmt.Sprintf(format, args...))
}

// node is about the node itself; by convention such an event has the node's name for its UID.
func (r *recorder) node(name, kind, reason, format string, args ...any) {
	r.add(
		"Node",
		&metav1.ObjectMeta{Name: name, UID: types.UID(name)},
		kind,
		reason,
		fmt.Sprintf(format, args...),
	)
}

func (r *recorder) add(objectKind string, about *metav1.ObjectMeta, kind, reason, text string) {
	now := metav1.Now()
	namespace := about.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}

	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      fmt.Sprintf("%s.%x", about.Name, now.UnixNano()),
		},
		InvolvedObject: corev1.ObjectReference{
			Kind:            objectKind,
			APIVersion:      "v1",
			Namespace:       about.Namespace,
			Name:            about.Name,
			UID:             about.UID,
			ResourceVersion: about.ResourceVersion,
		},
		Type:                kind,
		Reason:              reason,
		Message:             text[:min(len(text), eventText)],
		FirstTimestamp:      now,
		LastTimestamp:       now,
		Count:               1,
		Source:              corev1.EventSource{Component: r.source},
		ReportingController: r.source,
	}

	select {
	case r.queue <- e:
	default:
		r.log.Debug("event dropped", "object", about.Name, "reason", reason)
	}
}

// said identifies events that are the same but for their time.
type said struct {
	uid                   types.UID
	kind, reason, message string
}

// run sends until ctx ends.
func (r *recorder) run(ctx context.Context) {
	sent := map[said]*corev1.Event{}
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-r.queue:
			for key, old := range sent {
				if e.LastTimestamp.Sub(old.LastTimestamp.Time) > eventMemory {
					delete(sent, key)
				}
			}

			if err := r.send(ctx, sent, e); err != nil && ctx.Err() == nil {
				r.log.Warn("event is not stored",
					"object", e.InvolvedObject.Name, "reason", e.Reason, "err", err)
			}
		}
	}
}

func (r *recorder) send(ctx context.Context, sent map[said]*corev1.Event, e *corev1.Event) error {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()

	key := said{e.InvolvedObject.UID, e.Type, e.Reason, e.Message}
	if old := sent[key]; old != nil {
		old.Count++
		old.LastTimestamp = e.LastTimestamp
		patch, err := json.Marshal(map[string]any{"count": old.Count, "lastTimestamp": old.LastTimestamp})
		if err != nil {
			return err
		}
		if err := r.sink.PatchEvent(ctx, old.Namespace, old.Name, patch); !apierrors.IsNotFound(err) {
			return err
		}

		// the server has forgotten it meanwhile
		e.Count, e.FirstTimestamp = old.Count, old.FirstTimestamp
	}

	if err := r.sink.CreateEvent(ctx, e); err != nil {
		return err
	}

	sent[key] = e
	return nil
}

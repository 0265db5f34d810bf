// Package event records Events: what a program of the node does with somebody's object, for kubectl describe.
// Recording never blocks and never fails the caller. One goroutine sends from a bounded queue; a repeated
// event raises the count of the first one, and an object with too many events is rationed. While the server
// does not answer, events wait in the queue.
package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/retry"
)

// Sink is where events are stored: kube.Events of a client.
type Sink interface {
	Create(ctx context.Context, e *corev1.Event) (*corev1.Event, error)
	Patch(
		ctx context.Context,
		namespace, name string,
		kind types.PatchType,
		patch []byte,
		subresource ...string,
	) (*corev1.Event, error)
}

// Bounds: as client-go's recorder, 25 events for an object at once and one more every five minutes.
const (
	queueSize   = 1024
	burst       = 25
	refill      = 5 * time.Minute
	rememberFor = 10 * time.Minute
	sendTimeout = 10 * time.Second

	// patience is for how long one event is sent again, as client-go's recorder does.
	patience = 2 * time.Minute

	// courtesy is how long an event gives way to what it is about: a status that is written right after it
	// would wait until the server has stored it.
	courtesy = 100 * time.Millisecond

	// The API refuses longer messages.
	maxMessage = 1024
)

// pauses lie between the attempts to send an event.
var pauses = retry.Backoff{First: time.Second, Max: 10 * time.Second}

// Config says who records.
type Config struct {
	Component string // the name of the program, e.g. kubelet
	Node      string // where it runs; empty if that is part of Component

	// PerSecond and Burst bound all events together. Zero is no bound.
	PerSecond int
	Burst     int

	Log *slog.Logger
}

// Recorder records the events of one program on one node. It is safe for concurrent use.
type Recorder struct {
	sink  Sink
	cfg   Config
	queue chan record
	pace  *rate.Limiter // of all events together; nil: none
	lost  atomic.Int64  // because the queue was full, or the server away for too long

	rations rations
}

// New returns a recorder. Events are sent while Run runs.
func New(sink Sink, cfg Config) *Recorder {
	r := &Recorder{sink: sink, cfg: cfg, queue: make(chan record, queueSize)}
	if cfg.PerSecond > 0 {
		r.pace = rate.NewLimiter(rate.Limit(cfg.PerSecond), max(cfg.Burst, 1))
	}
	return r
}

// record is an event to send.
type record struct {
	*corev1.Event

	// once means that the API keeps one event of that name, however often it is sent.
	once bool

	// due is when it may be sent.
	due time.Time

	// reached, if there is no event, is closed when all before it are sent.
	reached chan struct{}
}

// Object refers to an object of the core group by its metadata.
func Object(kind string, about *metav1.ObjectMeta) corev1.ObjectReference {
	return corev1.ObjectReference{
		APIVersion:      "v1",
		Kind:            kind,
		Namespace:       about.Namespace,
		Name:            about.Name,
		UID:             about.UID,
		ResourceVersion: about.ResourceVersion,
	}
}

// Pod refers to a pod or, when container is not empty, to one of its containers.
func Pod(pod *corev1.Pod, container string) corev1.ObjectReference {
	ref := Object("Pod", &pod.ObjectMeta)
	if container != "" {
		ref.FieldPath = fieldPath(pod, container)
	}
	return ref
}

func fieldPath(pod *corev1.Pod, container string) string {
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

// Node refers to a Node. By convention its name stands in the place of its UID.
func Node(name string) corev1.ObjectReference {
	return Object("Node", &metav1.ObjectMeta{Name: name, UID: types.UID(name)})
}

// Record records an event of a type (corev1.EventTypeNormal or EventTypeWarning) about an object. An event
// about an object without a namespace is kept in the namespace default.
func (r *Recorder) Record(about corev1.ObjectReference, kind, reason, message string) {
	now := metav1.Now()
	name := fmt.Sprintf("%s.%x", about.Name, now.UnixNano())
	r.add(record{Event: r.event(about, name, kind, reason, message, now)})
}

// PodOnce records an event about a pod of which the API keeps one for each pod and reason, however often
// it is sent: by a program that was killed meanwhile, too. annotations are those of the event.
func (r *Recorder) PodOnce(pod *corev1.Pod, kind, reason, message string, annotations map[string]string) {
	hash := fnv.New64a()
	fmt.Fprintf(hash, "%s/%s", pod.UID, reason)
	name := fmt.Sprintf("%s.%x", pod.Name, hash.Sum64())

	e := r.event(Pod(pod, ""), name, kind, reason, message, metav1.Now())
	e.Annotations = maps.Clone(annotations)
	r.add(record{Event: e, once: true})
}

// event returns an event of that name.
func (r *Recorder) event(
	about corev1.ObjectReference,
	name, kind, reason, message string,
	now metav1.Time,
) *corev1.Event {
	namespace := about.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	if len(message) > maxMessage {
		message = message[:maxMessage-3] + "..."
	}

	return &corev1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: namespace, Name: name},
		InvolvedObject:      about,
		Type:                kind,
		Reason:              reason,
		Message:             message,
		FirstTimestamp:      now,
		LastTimestamp:       now,
		Count:               1,
		Source:              corev1.EventSource{Component: r.cfg.Component, Host: r.cfg.Node},
		ReportingController: r.cfg.Component,
		ReportingInstance:   r.cfg.Node,
	}
}

// add queues an event to be sent a moment later, unless its object has too many or the queue is full. The
// first comes before the queue, which one object would fill otherwise.
func (r *Recorder) add(e record) {
	now := time.Now()
	if !r.rations.allow(e.InvolvedObject.UID, now) {
		return
	}

	e.due = now.Add(courtesy)
	select {
	case r.queue <- e:
	default:
		r.lost.Add(1)
	}
}

// Pod records an event about a pod or, when container is not empty, about one of its containers.
func (r *Recorder) Pod(pod *corev1.Pod, container, kind, reason, message string) {
	r.Record(Pod(pod, container), kind, reason, message)
}

// farewell is how long events that were recorded before the end are still sent.
const farewell = time.Second

// Run sends events until ctx ends, and for a moment longer what was recorded before. It is called once.
func (r *Recorder) Run(ctx context.Context) {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(farewell, cancel) })()

	memory := newMemory()
	tidy := time.NewTicker(rememberFor)
	defer tidy.Stop()

	for {
		select {
		case <-ctx.Done():
			r.sendRest(sending, memory)
			return
		case <-tidy.C:
			memory.tidy(time.Now())
			r.rations.tidy(time.Now())
			if n := r.lost.Swap(0); n > 0 {
				r.cfg.Log.Warn("events are lost: the API server was away or too slow", "count", n)
			}

		case e := <-r.queue:
			r.await(ctx, e.due)
			r.send(sending, memory, e)
		}
	}
}

// sendRest sends what is left in the queue, until ctx ends.
func (r *Recorder) sendRest(ctx context.Context, memory *memory) {
	for ctx.Err() == nil {
		select {
		case e := <-r.queue:
			r.send(ctx, memory, e)
		default:
			return
		}
	}
}

// Flush returns when what was recorded before is sent, or ctx has ended. Run runs meanwhile.
func (r *Recorder) Flush(ctx context.Context) {
	reached := make(chan struct{})
	select {
	case r.queue <- record{reached: reached}:
	case <-ctx.Done():
		return
	}

	select {
	case <-reached:
	case <-ctx.Done():
	}
}

// await returns when the next event may be sent, or ctx has ended.
func (r *Recorder) await(ctx context.Context, due time.Time) {
	if due.IsZero() {
		return
	}
	if r.pace != nil && r.pace.Wait(ctx) != nil {
		return
	}

	select {
	case <-ctx.Done():
	case <-time.After(time.Until(due)):
	}
}

// send stores an event. One that the server does not answer to is sent again, until ctx ends or patience
// does.
func (r *Recorder) send(ctx context.Context, memory *memory, e record) {
	if e.reached != nil {
		close(e.reached)
		return
	}

	known := memory.repeats(e.Event)
	if known != nil && e.once {
		return
	}
	if known != nil {
		known.Count++
		known.LastTimestamp = e.LastTimestamp
	}

	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	var err error
	for range pauses.Attempts(ctx) {
		if err = r.store(ctx, memory, e.Event, known); !isUnanswered(err) {
			break
		}
	}

	if isUnanswered(err) {
		r.lost.Add(1)
	}
	r.failed(e.Event, err)
}

// store stores an event, or the raised count of the known one that says the same. It may be repeated.
func (r *Recorder) store(ctx context.Context, memory *memory, e, known *corev1.Event) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()

	if known != nil {
		err := r.raise(ctx, known)
		if !apierrors.IsNotFound(err) {
			return err
		}

		// the server has forgotten it
		e.Count, e.FirstTimestamp = known.Count, known.FirstTimestamp
	}

	// One of that name is the same: of an attempt whose answer was lost, or of an earlier process.
	if _, err := r.sink.Create(ctx, e); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}

	memory.add(e)
	return nil
}

// isUnanswered reports whether an error says nothing about the event: the server was not reached, or had no
// time. Too many requests without a time to wait are an answer: somebody has more events than the server
// allows (admission plugin EventRateLimit), and those of others must not wait for that.
func isUnanswered(err error) bool {
	if _, answered := errors.AsType[*apierrors.StatusError](err); !answered {
		return err != nil
	}
	_, busy := apierrors.SuggestsClientDelay(err)
	return busy || apierrors.IsServiceUnavailable(err) || apierrors.IsServerTimeout(err) ||
		apierrors.IsTimeout(err)
}

func (r *Recorder) raise(ctx context.Context, known *corev1.Event) error {
	patch, err := json.Marshal(map[string]any{
		"count":         known.Count,
		"lastTimestamp": known.LastTimestamp,
	})
	if err != nil {
		return err
	}
	_, err = r.sink.Patch(ctx, known.Namespace, known.Name, types.MergePatchType, patch)
	return err
}

// failed logs that an event is not stored. Most often its namespace is being deleted.
func (r *Recorder) failed(e *corev1.Event, err error) {
	if err == nil {
		return
	}
	about := e.InvolvedObject.Namespace + "/" + e.InvolvedObject.Name
	r.cfg.Log.Debug("event is not stored", "reason", e.Reason, "object", about, "err", err)
}

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
)

const (
	// eventNamespace is where Events of Nodes are, which have no namespace.
	eventNamespace = metav1.NamespaceDefault
	// eventLife is after how long the API server deletes an Event.
	eventLife = time.Hour
	// maxEvents bounds the Events of that time: hostile Nodes are few, or the cluster is lost anyway.
	maxEvents = 100
)

// events records Events with the reason FailedPodCIDR. Every node of the cluster comes to the same decision,
// and the name of an Event is derived from it: the first node writes it, and the others find that it exists.
// That is why the recorder of internal/kube, which names an Event by its time, does not serve here.
type events struct {
	sink   eventSink
	log    *slog.Logger
	latest chan []podcidr.Refusal
	// recorded says when, by the name of the Event.
	recorded map[string]time.Time
}

// eventSink is where Events are stored: kube.Events of a client.
type eventSink interface {
	Create(ctx context.Context, e *corev1.Event) (*corev1.Event, error)
}

func newEvents(sink eventSink, log *slog.Logger) *events {
	return &events{
		sink:     sink,
		log:      log,
		latest:   make(chan []podcidr.Refusal, 1),
		recorded: map[string]time.Time{},
	}
}

// record hands over all refusals of a pass, in place of those of an earlier one that nobody has looked at
// yet. One goroutine calls it.
func (e *events) record(all []podcidr.Refusal) {
	select {
	case <-e.latest:
	default:
	}
	e.latest <- all
}

// run records what is new until ctx ends.
func (e *events) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case all := <-e.latest:
			e.write(ctx, all, time.Now())
		}
	}
}

// write writes an Event for each refusal that has none, or none any more.
func (e *events) write(ctx context.Context, all []podcidr.Refusal, now time.Time) {
	for name, at := range e.recorded {
		if now.Sub(at) > eventLife {
			delete(e.recorded, name)
		}
	}

	for _, r := range all {
		event := refusalEvent(r, now)
		if _, there := e.recorded[event.Name]; there {
			continue
		}
		if len(e.recorded) >= maxEvents {
			return
		}

		e.recorded[event.Name] = now
		err := e.create(ctx, event)
		if err != nil && !apierrors.IsAlreadyExists(err) && ctx.Err() == nil {
			e.log.Warn("an Event is not written", "node", r.Node.Name, "err", err)
		}
	}
}

func (e *events) create(ctx context.Context, event *corev1.Event) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	_, err := e.sink.Create(ctx, event)
	return err
}

// refusalEvent returns the Event of a Node, which kubectl describe node shows.
func refusalEvent(r podcidr.Refusal, now time.Time) *corev1.Event {
	sum := sha256.Sum256([]byte(r.Node.UID + " " + r.String()))
	at := metav1.NewTime(now)
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Name:      "trivet-netd." + hex.EncodeToString(sum[:10]),
			Namespace: eventNamespace,
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1",
			Kind:       "Node",
			Name:       r.Node.Name,
			UID:        types.UID(r.Node.UID),
		},
		Type:           corev1.EventTypeWarning,
		Reason:         "FailedPodCIDR",
		Message:        r.String(),
		Source:         corev1.EventSource{Component: "trivet-netd"},
		FirstTimestamp: at,
		LastTimestamp:  at,
		Count:          1,
	}
}

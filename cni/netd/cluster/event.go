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
	"k8s.io/client-go/rest"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
)

const (
	// Events of Nodes, which have no namespace, are in this one.
	eventNamespace = metav1.NamespaceDefault
	// The API server forgets an Event after an hour.
	eventLife = time.Hour
	// maxEvents bounds the Events of an hour: hostile Nodes are few, or there is no cluster left to save.
	maxEvents = 100
)

// events writes Events of type FailedPodCIDR. Every node of the cluster comes to the same decision, and the
// name of an Event is made of it: the first node writes it, and for the others it is there already.
type events struct {
	client *rest.RESTClient
	log    *slog.Logger
	latest chan []podcidr.Refusal
	told   map[string]time.Time // when, by the name of the Event
}

func newEvents(client *rest.RESTClient, log *slog.Logger) *events {
	return &events{
		client: client,
		log:    log,
		latest: make(chan []podcidr.Refusal, 1),
		told:   map[string]time.Time{},
	}
}

// refused hands over all refusals of a pass; those of a pass that nobody has looked at yet are void.
func (e *events) refused(all []podcidr.Refusal) {
	select {
	case <-e.latest:
	default:
	}
	e.latest <- all
}

// run writes what is new, and what stands for longer than the API server remembers.
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

func (e *events) write(ctx context.Context, all []podcidr.Refusal, now time.Time) {
	for name, at := range e.told {
		if now.Sub(at) > eventLife {
			delete(e.told, name)
		}
	}

	for _, r := range all {
		event := refusalEvent(r, now)
		if _, there := e.told[event.Name]; there {
			continue
		}
		if len(e.told) >= maxEvents {
			return
		}

		e.told[event.Name] = now
		request := e.client.Post().Namespace(eventNamespace).Resource("events").Body(event)
		err := request.Timeout(answerTimeout).Do(ctx).Error()
		if err != nil && !apierrors.IsAlreadyExists(err) && ctx.Err() == nil {
			e.log.Warn("an Event is not written", "node", r.Node.Name, "err", err)
		}
	}
}

// refusalEvent names the Node; kubectl describe node shows it.
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

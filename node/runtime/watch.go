package runtime

import (
	"context"
	"hash/fnv"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/retry"
)

// How often everything is listed: with an event stream only to be safe; without one, because the runtime has
// none or it was cut off, as the only way to learn of changes.
const (
	relistWithEvents    = 45 * time.Second
	relistWithoutEvents = time.Second
)

// Pauses before a stream of events that was cut off, or refused, is opened again.
const (
	firstReconnect = 100 * time.Millisecond
	lastReconnect  = time.Second
)

// Watcher is what Watch reports to. Its methods must not block.
type Watcher interface {
	// Look is called with the pod's UID whenever something of the pod may have changed in the runtime.
	Look(uid string)
	// Listed is called after each list of the whole runtime, with all its pods.
	Listed(pods map[Pod]string)
}

// Watch reports changes until ctx ends: those of the runtime's event stream, if it has one, and what differs
// from one list of everything to the next.
func (c *Client) Watch(ctx context.Context, w Watcher) error {
	connected := make(chan bool, 1)
	events := eventStream{
		runtime:   c.runtime,
		log:       c.log,
		watcher:   w,
		connected: connected,
	}

	var streaming sync.WaitGroup
	defer streaming.Wait()

	streaming.Go(func() { events.run(ctx) })

	last := map[Pod]string{}
	interval := relistWithoutEvents
	timer := time.NewTimer(0)
	defer timer.Stop()

	for {
		select {
		case <-ctx.Done():
			return nil

		case on := <-connected:
			interval = relistWithoutEvents
			if on {
				interval = relistWithEvents
			}

			// What happened while there was no stream is in the list alone.
			timer.Reset(0)

		case <-timer.C:
			began := time.Now()
			if pods, err := c.Pods(ctx); err == nil {
				c.relisted(began)
				report(w, last, pods)
				last = pods
			} else if ctx.Err() == nil {
				c.log.Warn("list of the container runtime", "err", err)
			}

			timer.Reset(interval)
		}
	}
}

func (c *Client) relisted(began time.Time) {
	if c.Relisted != nil {
		c.Relisted(began, time.Since(began))
	}
}

// report asks for a look at each pod that is new, changed or gone.
func report(w Watcher, last, now map[Pod]string) {
	for p, sum := range now {
		if last[p] != sum {
			w.Look(p.UID)
		}
	}
	for p := range last {
		if _, ok := now[p]; !ok {
			w.Look(p.UID)
		}
	}
	w.Listed(now)
}

// eventStream reads the runtime's events of containers.
type eventStream struct {
	runtime   cri.RuntimeServiceClient
	log       *slog.Logger
	watcher   Watcher
	connected chan<- bool // gets whether events come
}

// run reports the pods of events until ctx ends, and opens the stream again when it was cut off. It returns
// early if the runtime has no events.
func (s eventStream) run(ctx context.Context) {
	pauses := retry.Backoff{First: firstReconnect, Max: lastReconnect}
	for ctx.Err() == nil {
		received, err := s.receive(ctx)
		if status.Code(err) == codes.Unimplemented {
			s.log.Info("the container runtime has no events: listing every second instead")
			return
		}

		if received {
			pauses.Reset()
		}
		if pauses.Wait(ctx) != nil {
			return
		}
	}
}

// receive opens the stream and reads it to its end. It reports whether an event came.
func (s eventStream) receive(ctx context.Context) (received bool, err error) {
	events, err := s.runtime.GetContainerEvents(ctx, &cri.GetEventsRequest{})
	if err != nil {
		return false, err
	}

	send(ctx, s.connected, true)
	defer send(ctx, s.connected, false)

	for {
		e, err := events.Recv()
		if err != nil {
			return received, err
		}

		received = true
		s.watcher.Look(e.GetPodSandboxStatus().GetMetadata().GetUid())
	}
}

func send(ctx context.Context, c chan<- bool, value bool) {
	select {
	case c <- value:
	case <-ctx.Done():
	}
}

// Pods lists the pods that the runtime has sandboxes or containers of, each with a fingerprint of their
// states: a pod whose fingerprint has changed is worth a look.
func (c *Client) Pods(ctx context.Context) (map[Pod]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	sandboxes, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return nil, plain(err)
	}

	containers, err := c.runtime.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return nil, plain(err)
	}

	// The sum does not depend on the order of the lists.
	sums, present := map[Pod]uint64{}, map[string]bool{}
	add := func(id, state string, labels map[string]string) {
		present[id] = true
		if p := podOf(labels); p.UID != "" {
			sums[p] += fingerprint(id, state)
		}
	}

	for _, s := range sandboxes.Items {
		add(s.Id, s.State.String(), s.Labels)
	}

	for _, s := range containers.Containers {
		add(s.Id, s.State.String(), s.Labels)
	}

	c.details.forgetAllBut(present)

	out := make(map[Pod]string, len(sums))
	for p, sum := range sums {
		out[p] = strconv.FormatUint(sum, 36)
	}

	return out, nil
}

func fingerprint(id, state string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, id)
	_, _ = io.WriteString(h, state)
	return h.Sum64()
}

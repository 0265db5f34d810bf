package runtime

import (
	"context"
	"hash/fnv"
	"io"
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
	var stream sync.WaitGroup
	defer stream.Wait()

	connected := make(chan bool, 1)
	stream.Go(func() { c.stream(ctx, w, connected) })

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
			if pods, err := c.Pods(ctx); err == nil {
				report(w, last, pods)
				last = pods
			} else if ctx.Err() == nil {
				c.log.Warn("list of the container runtime", "err", err)
			}

			timer.Reset(interval)
		}
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

// stream reports the pods of container events until ctx ends, and on connected whether events come. It
// returns early if the runtime has no events.
func (c *Client) stream(ctx context.Context, w Watcher, connected chan<- bool) {
	pauses := retry.Backoff{First: firstReconnect, Max: lastReconnect}
	for ctx.Err() == nil {
		received, err := c.receive(ctx, w, connected)
		if status.Code(err) == codes.Unimplemented {
			c.log.Info("the container runtime has no events: listing every second instead")
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

// receive opens one stream and reads it to its end. It reports whether an event came.
func (c *Client) receive(ctx context.Context, w Watcher, connected chan<- bool) (received bool, err error) {
	events, err := c.runtime.GetContainerEvents(ctx, &cri.GetEventsRequest{})
	if err != nil {
		return false, err
	}

	send(ctx, connected, true)
	defer send(ctx, connected, false)

	for {
		e, err := events.Recv()
		if err != nil {
			return received, err
		}

		received = true
		w.Look(e.GetPodSandboxStatus().GetMetadata().GetUid())
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
	sums, known := map[Pod]uint64{}, map[string]bool{}
	add := func(id, state string, labels map[string]string) {
		known[id] = true
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

	c.forgetUnknown(known)

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

// forgetUnknown drops what is remembered of containers and sandboxes that are gone.
func (c *Client) forgetUnknown(known map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()

	for id := range c.containers {
		if !known[id] {
			delete(c.containers, id)
		}
	}

	for id := range c.addresses {
		if !known[id] {
			delete(c.addresses, id)
		}
	}
}

// Annotations are those of pods, by UID.
type Annotations map[string]map[string]string

// Namesakes returns the pods of a full name that the runtime has a sandbox of, by UID, each with the
// annotations that it was made with.
func (c *Client) Namesakes(ctx context.Context, namespace, name string) (Annotations, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	label := map[string]string{LabelPodNamespace: namespace, LabelPodName: name}
	r, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{
		Filter: &cri.PodSandboxFilter{LabelSelector: label},
	})
	if err != nil {
		return nil, plain(err)
	}

	out := Annotations{}
	for _, s := range r.Items {
		if p := podOf(s.Labels); p.UID != "" {
			out[p.UID] = s.Annotations
		}
	}

	return out, nil
}

package runtime

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// How often everything is listed: with an event stream only to be safe, without one (a runtime that lacks it,
// or lost it) because nothing else tells.
const (
	relistWithEvents    = 45 * time.Second
	relistWithoutEvents = time.Second
)

// Watcher hears which pods are worth a look.
type Watcher interface {
	// Look is called with the pod's UID whenever something of the pod may have changed in the runtime.
	Look(uid string)
	// Listed is called after each list of the whole runtime, with all its pods.
	Listed(pods map[Pod]string)
}

// Watch reports changes until ctx ends: by the runtime's events where it has them, and by comparing lists
// always.
func (c *Client) Watch(ctx context.Context, w Watcher) error {
	streaming := make(chan bool, 1)
	go c.stream(ctx, w, streaming)
	last := map[Pod]string{}
	interval := relistWithoutEvents
	timer := time.NewTimer(0)
	defer timer.Stop()

	for {
		select {
		case <-ctx.Done():
			return nil
		case on := <-streaming:
			interval = relistWithoutEvents
			if on {
				interval = relistWithEvents
			}

			// what happened while nobody listened
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

// stream listens to container events and tells over on whether they come.
func (c *Client) stream(ctx context.Context, w Watcher, on chan<- bool) {
	for wait := 100 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, time.Second) {
		events, err := c.Runtime.GetContainerEvents(ctx, &cri.GetEventsRequest{})
		if err == nil {
			told := false
			for {
				var e *cri.ContainerEventResponse
				if !told {
					told = true
					tell(ctx, on, true)
				}

				if e, err = events.Recv(); err != nil {
					break
				}

				wait = 100 * time.Millisecond
				w.Look(e.GetPodSandboxStatus().GetMetadata().GetUid())
			}

			tell(ctx, on, false)
		}

		if status.Code(err) == codes.Unimplemented {
			c.log.Info("the container runtime has no events: listing every second instead")
			return
		}

		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func tell(ctx context.Context, on chan<- bool, value bool) {
	select {
	case on <- value:
	case <-ctx.Done():
	}
}

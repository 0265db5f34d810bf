package runtime_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trivet-node/trivet/node/runtime"
)

// hearing is a watcher that passes on to a test what it hears.
type hearing struct {
	looks  chan string
	listed chan int
}

func (h hearing) Look(uid string)                    { h.looks <- uid }
func (h hearing) Listed(pods map[runtime.Pod]string) { h.listed <- len(pods) }

// watch watches until the test ends.
func watch(t *testing.T, c *runtime.Client) hearing {
	t.Helper()
	h := hearing{make(chan string, 100), make(chan int, 100)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- c.Watch(ctx, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	return h
}

func (h hearing) await(t *testing.T, what string) {
	t.Helper()
	select {
	case uid := <-h.looks:
		if uid != "a" {
			t.Errorf("%s: heard of %q", what, uid)
		}
	case <-time.After(time.Minute):
		t.Fatalf("%s was not heard", what)
	}
}

func TestWatchHearsWhatThereIsAndExits(t *testing.T) {
	s, c := connect(t)
	container(t, c, "a", sandbox(t, c, "a", 0), 0)
	h := watch(t, c)
	h.await(t, "what there is")
	if n := <-h.listed; n != 1 {
		t.Errorf("%d pods are listed", n)
	}
	s.Exit("c", 0)
	h.await(t, "the exit")
}

func TestWatchComparesListsOfARuntimeWithoutEvents(t *testing.T) {
	s, c := connect(t)
	s.FailOn("GetContainerEvents", status.Error(codes.Unimplemented, "no events"))
	id := sandbox(t, c, "a", 0)
	container(t, c, "a", id, 0)
	h := watch(t, c)
	h.await(t, "what there is")
	s.Exit("c", 0)
	h.await(t, "the exit")
	if err := c.RemoveSandbox(t.Context(), id); err != nil {
		t.Fatal(err)
	}

	h.await(t, "the removal")
}

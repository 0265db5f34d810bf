package kube

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

// lagging is a server of Nodes that is always at version 5 and has none. It ends no watch.
type lagging struct{ begun, open atomic.Int64 }

func (l *lagging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Query().Get("watch") == "" {
		fmt.Fprint(w, `{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[]}`)
		return
	}

	l.begun.Add(1)
	l.open.Add(1)
	defer l.open.Add(-1)

	// More comes than the end of the list: who does not read on must stop the watch.
	const bookmark = `{"type":"BOOKMARK","object":{"kind":"Node","apiVersion":"v1","metadata":` +
		`{"resourceVersion":"5","annotations":{"k8s.io/initial-events-end":"true"}}}}`
	fmt.Fprintln(w, bookmark)
	fmt.Fprintln(w, bookmark)
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func TestWatchesWhoseListIsRefusedAreStopped(t *testing.T) {
	server := &lagging{}
	front := httptest.NewServer(server)
	t.Cleanup(front.Close)
	client, err := New(At(front.URL))
	if err != nil {
		t.Fatal(err)
	}

	s := newStore(Nodes(client).resource)
	s.failedHook = func(error) {}
	s.pauses = retry.Backoff{First: 50 * time.Millisecond, Max: 50 * time.Millisecond}
	list(t, s, "100")

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.reflect(ctx)
	}()

	poll := retry.Backoff{First: time.Millisecond, Max: time.Millisecond}
	for range poll.Attempts(ctx) {
		if server.begun.Load() >= 5 && server.open.Load() <= 1 {
			break
		}
	}
	if begun, open := server.begun.Load(), server.open.Load(); begun < 5 || open > 1 {
		t.Errorf("of %d watches, %d are open", begun, open)
	}

	cancel()
	<-ended
}

package heartbeat

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/trivet-node/trivet/node/kubeapi"
)

// Pods that were bound because of a label are refused for good if they are judged without it.
func TestRefreshIsNoOlderThanTheQuestion(t *testing.T) {
	var asked atomic.Int32
	first, answer := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := asked.Add(1)

		// it has read the Node before it got the label
		if n == 1 {
			close(first)
			<-answer
		}

		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"kind":"Node","apiVersion":"v1","metadata":{"name":"n","resourceVersion":"%d",`+
			`"labels":{"answer":"%d"}}}`, n, n)
	}))
	defer server.Close()

	client, err := kubeapi.New(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}

	h := New(Config{Name: "n"}, client.Core, nil, nil, nil, slog.New(slog.DiscardHandler))

	var running sync.WaitGroup
	running.Go(func() { h.Refresh(t.Context()) })
	<-first
	for range 10 {
		running.Go(func() {
			h.Refresh(t.Context())
			if got := h.Known().Labels["answer"]; got < "2" {
				t.Errorf("judged by answer %q", got)
			}
		})
	}

	close(answer)
	running.Wait()
}

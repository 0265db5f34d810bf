package kube_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/retry"
)

// slow answers a list of Nodes, each of which takes it a while, and stops after so many if that is not zero.
type slow struct{ stop int }

const slowNodes = 12

func (s slow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, `{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[`)
	for i := range slowNodes {
		if s.stop > 0 && i == s.stop {
			<-r.Context().Done()
			return
		}
		if i > 0 {
			fmt.Fprint(w, ",")
		}
		fmt.Fprintf(w, `{"metadata":{"name":"n%d"}}`, i)
		_ = http.NewResponseController(w).Flush()
		if retry.Sleep(r.Context(), 100*time.Millisecond) != nil {
			return
		}
	}
	fmt.Fprint(w, `]}`)
}

func TestAListMayTakeAsLongAsItGetsOn(t *testing.T) {
	for name, c := range map[string]struct {
		server slow
		want   error
	}{
		"it gets on": {slow{}, nil},
		"it stops":   {slow{stop: 3}, context.DeadlineExceeded},
	} {
		front := httptest.NewServer(c.server)
		t.Cleanup(front.Close)
		cfg := kube.At(front.URL)
		cfg.Limits.Answer = time.Second
		client, err := kube.New(cfg)
		if err != nil {
			t.Fatal(err)
		}

		all, _, err := kube.Nodes(client).List(t.Context(), "", metav1.ListOptions{})
		if !errors.Is(err, c.want) || c.want == nil && len(all) != slowNodes {
			t.Errorf("%s: %d Nodes, %v", name, len(all), err)
		}
	}
}

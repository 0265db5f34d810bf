package kube_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
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
		if retry.Sleep(r.Context(), 100*time.Millisecond) != nil {
			return
		}
	}
	fmt.Fprint(w, `]}`)
}

// direct has requests answered by a handler, without a network: time is the test's.
type direct struct{ handler http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	body, answer := io.Pipe()
	w := written{header: http.Header{}, body: answer}
	stop := context.AfterFunc(r.Context(), func() { answer.CloseWithError(context.Cause(r.Context())) })
	go func() {
		defer stop()
		d.handler.ServeHTTP(w, r)
		answer.Close()
	}()
	header := http.Header{"Content-Type": {"application/json"}}
	return &http.Response{StatusCode: http.StatusOK, Header: header, Body: body}, nil
}

// written is an answer as it is written.
type written struct {
	header http.Header
	body   io.Writer
}

func (w written) Header() http.Header         { return w.header }
func (w written) WriteHeader(int)             {}
func (w written) Write(p []byte) (int, error) { return w.body.Write(p) }

func TestAListMayTakeAsLongAsItGetsOn(t *testing.T) {
	for name, c := range map[string]struct {
		server slow
		want   error
	}{
		"it gets on": {slow{}, nil},
		"it stops":   {slow{stop: 3}, context.DeadlineExceeded},
	} {
		synctest.Test(t, func(t *testing.T) {
			cfg := kube.At("http://server").Via(direct{c.server})
			cfg.Limits.Answer = time.Second
			client, err := kube.New(cfg)
			if err != nil {
				t.Fatal(err)
			}

			all, _, err := kube.Nodes(client).List(t.Context(), "", metav1.ListOptions{})
			if !errors.Is(err, c.want) || c.want == nil && len(all) != slowNodes {
				t.Errorf("%s: %d Nodes, %v", name, len(all), err)
			}
		})
	}
}

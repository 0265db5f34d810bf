// Package progress bounds requests by how they get on, not by how long they take: a long list over a slow
// line needs its time, and one of which nothing comes any more does not get better by waiting.
package progress

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Bound returns a context for a request through Transport. It ends when nothing has come for the time: until
// the answer begins, and after each part of it. heard is called for each part that comes; it may be nil.
func Bound(ctx context.Context, pause time.Duration, heard func()) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(ctx)
	late := time.AfterFunc(pause, func() {
		end(fmt.Errorf("nothing has come for %s: %w", pause, context.DeadlineExceeded))
	})
	ctx = context.WithValue(ctx, key{}, func() {
		late.Reset(pause)
		if heard != nil {
			heard()
		}
	})

	return ctx, func() {
		late.Stop()
		end(nil)
	}
}

// key is under what a context has the function that is called for each part.
type key struct{}

// Transport returns a transport that tells the contexts of Bound what comes.
func Transport(next http.RoundTripper) http.RoundTripper { return transport{next} }

type transport struct{ next http.RoundTripper }

// WrappedRoundTripper is asked for by client-go.
func (t transport) WrappedRoundTripper() http.RoundTripper { return t.next }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(r)
	came, isBound := r.Context().Value(key{}).(func())
	if err != nil || !isBound {
		return response, err
	}

	came()
	response.Body = &body{ReadCloser: response.Body, came: came}
	return response, nil
}

// body is that of an answer.
type body struct {
	io.ReadCloser
	came func()
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.came()
	}
	return n, err
}

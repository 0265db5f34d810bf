// Package tracetest gives tests a provider whose spans they can read.
package tracetest

import (
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/internal/trace"
	"github.com/trivet-node/trivet/internal/trace/receiver"
)

// New returns a provider that keeps all traces, and a function that ends it and returns the spans that it has
// sent, the earliest first.
func New(tb testing.TB) (provider *trace.Provider, sent func() []receiver.Span) {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "otlp.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		tb.Fatal(err)
	}

	received := receiver.Serve(l)
	tb.Cleanup(received.Close)

	provider, err = trace.New(tb.Context(), trace.Config{
		Endpoint:          "unix://" + path,
		Service:           "test",
		SamplesPerMillion: 1e6,
		Log:               slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}

	return provider, func() []receiver.Span {
		provider.Flush()
		return received.Spans()
	}
}

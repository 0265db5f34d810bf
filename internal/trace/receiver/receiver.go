// Package receiver takes spans by OTLP over gRPC and keeps them, for tests and for pictures of a trace.
package receiver

import (
	"context"
	"encoding/hex"
	"net"
	"slices"
	"sync"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Span is one as it was received. IDs are in hexadecimal; Parent is empty in the first span of a trace.
type Span struct {
	Service string
	Name    string

	Trace  string
	ID     string
	Parent string

	Attributes   map[string]string
	Began, Ended time.Time

	// Failure is the message of a span that failed.
	Failure string
}

// Receiver keeps what it receives.
type Receiver struct {
	collector.UnimplementedTraceServiceServer
	server *grpc.Server

	// mu guards what follows.
	mu    sync.Mutex
	spans []Span
	more  chan struct{}
}

// Serve returns a receiver that listens already. Close ends it, and the listener.
func Serve(l net.Listener) *Receiver {
	r := &Receiver{server: grpc.NewServer(), more: make(chan struct{})}
	collector.RegisterTraceServiceServer(r.server, r)
	go func() { _ = r.server.Serve(l) }()
	return r
}

// Close ends the receiver.
func (r *Receiver) Close() { r.server.Stop() }

// Export takes spans (collector.TraceServiceServer).
func (r *Receiver) Export(
	_ context.Context, request *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()

	for _, of := range request.ResourceSpans {
		service := values(of.Resource.GetAttributes())["service.name"]
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				r.spans = append(r.spans, read(service, s))
			}
		}
	}

	close(r.more)
	r.more = make(chan struct{})
	return &collector.ExportTraceServiceResponse{}, nil
}

func read(service string, s *otlp.Span) Span {
	out := Span{
		Service:    service,
		Name:       s.Name,
		Trace:      hex.EncodeToString(s.TraceId),
		ID:         hex.EncodeToString(s.SpanId),
		Parent:     hex.EncodeToString(s.ParentSpanId),
		Attributes: values(s.Attributes),
		Began:      time.Unix(0, int64(s.StartTimeUnixNano)),
		Ended:      time.Unix(0, int64(s.EndTimeUnixNano)),
	}
	if s.Status.GetCode() == otlp.Status_STATUS_CODE_ERROR {
		out.Failure = s.Status.Message
	}

	return out
}

func values(attributes []*common.KeyValue) map[string]string {
	out := map[string]string{}
	for _, a := range attributes {
		out[a.Key] = a.Value.GetStringValue()
	}
	return out
}

// Spans returns what was received so far, the earliest first.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()

	out := slices.Clone(r.spans)
	slices.SortStableFunc(out, func(a, b Span) int { return a.Began.Compare(b.Began) })
	return out
}

// Await waits until what was received is enough, and returns it. It returns the end of ctx, with what there
// is.
func (r *Receiver) Await(ctx context.Context, enough func([]Span) bool) ([]Span, error) {
	for {
		r.mu.Lock()
		more := r.more
		r.mu.Unlock()

		spans := r.Spans()
		if enough(spans) {
			return spans, nil
		}

		select {
		case <-more:
		case <-ctx.Done():
			return spans, context.Cause(ctx)
		}
	}
}

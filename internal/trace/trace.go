// Package trace follows what a node does for a pod through its programs, as OpenTelemetry spans. One program
// begins a trace (the agent, for a pod), gRPC metadata carry it to the others (W3C Trace Context), and each
// sends its own spans to a receiver by OTLP over gRPC.
//
// Without an endpoint there is no Provider. All functions of the package accept that: a nil *Provider and a
// nil *Span do nothing, and no interceptor is installed.
package trace

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/trivet-node/trivet/internal/program"
)

// Config says who sends spans, and where to.
type Config struct {
	// Endpoint is host:port of an OTLP receiver (gRPC, without TLS), or unix:///path. Empty: no spans.
	Endpoint string

	// Service is the name of the program, service.name.
	Service string

	// Node is the name of the node, k8s.node.name; empty: not known.
	Node string

	// SamplesPerMillion of the traces that begin here are kept. Of traces that began elsewhere all are kept
	// whose beginner has kept them.
	SamplesPerMillion int

	Log *slog.Logger
}

// Provider makes the spans of one program and sends them. At most 2,048 wait; the spans of a receiver that
// does not keep up, or is not there, are dropped.
type Provider struct {
	spans  *sdktrace.TracerProvider
	tracer oteltrace.Tracer
}

// New returns a provider, nil if there is no endpoint. The receiver need not be there yet.
func New(ctx context.Context, cfg Config) (*Provider, error) {
	if cfg.Endpoint == "" {
		return nil, nil
	}

	exporter, err := otlptracegrpc.New(ctx,
		otlptracegrpc.WithEndpoint(cfg.Endpoint),
		otlptracegrpc.WithInsecure(),
		otlptracegrpc.WithTimeout(sendLimit),
	)
	if err != nil {
		return nil, fmt.Errorf("OTLP endpoint %q: %w", cfg.Endpoint, err)
	}

	// The library reports what it drops here, at each attempt.
	otel.SetErrorHandler(&once{log: cfg.Log, endpoint: cfg.Endpoint})

	attributes := []attribute.KeyValue{
		attribute.String("service.name", cfg.Service),
		attribute.String("service.version", program.Version),
	}
	if cfg.Node != "" {
		attributes = append(attributes, attribute.String("k8s.node.name", cfg.Node))
	}

	share := sdktrace.TraceIDRatioBased(float64(cfg.SamplesPerMillion) / 1e6)
	spans := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter, sdktrace.WithBatchTimeout(batchDelay)),
		sdktrace.WithSampler(sdktrace.ParentBased(share)),
		sdktrace.WithResource(resource.NewSchemaless(attributes...)),
		sdktrace.WithRawSpanLimits(limits),
	)

	return &Provider{spans: spans, tracer: spans.Tracer(scope)}, nil
}

// scope is the name of the instrumentation scope of all spans.
const scope = "github.com/trivet-node/trivet"

// batchDelay is how long spans wait for others, sendLimit what one attempt to send them may take.
const (
	batchDelay = time.Second
	sendLimit  = 10 * time.Second
)

// limits bound a span: names and errors come from pods and from other programs.
var limits = sdktrace.SpanLimits{
	AttributeValueLengthLimit:   1024,
	AttributeCountLimit:         32,
	EventCountLimit:             8,
	LinkCountLimit:              8,
	AttributePerEventCountLimit: 8,
	AttributePerLinkCountLimit:  8,
}

// flushLimit is how long Flush may take: a program that ends does not wait for a receiver that is gone.
const flushLimit = 2 * time.Second

// Flush sends what waits and ends the provider. Spans that it cannot send are dropped.
func (p *Provider) Flush() {
	if p == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
	defer cancel()
	_ = p.spans.Shutdown(ctx)
}

// once logs the first failure, and one a minute after that.
type once struct {
	log      *slog.Logger
	endpoint string

	// mu guards next.
	mu   sync.Mutex
	next time.Time
}

// Handle is called with each failure (otel.ErrorHandler).
func (o *once) Handle(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()

	if now := time.Now(); now.After(o.next) {
		o.next = now.Add(time.Minute)
		o.log.Warn("spans are lost", "endpoint", o.endpoint, "err", err)
	}
}

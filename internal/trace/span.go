package trace

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// Span is a piece of work that has begun. A nil Span is one that nobody wants to see.
type Span struct {
	span oteltrace.Span
}

// Attribute says more of a span: a key of OpenTelemetry's semantic conventions, such as k8s.pod.name, and its
// value.
type Attribute struct{ Key, Value string }

func keyValues(attributes []Attribute) oteltrace.SpanStartEventOption {
	var out []attribute.KeyValue
	for _, a := range attributes {
		out = append(out, attribute.String(a.Key, a.Value))
	}
	return oteltrace.WithAttributes(out...)
}

// Root begins a trace whose first span began at a time. It returns nil if the trace is not among the samples.
func (p *Provider) Root(name string, began time.Time, attributes ...Attribute) *Span {
	if p == nil {
		return nil
	}
	options := []oteltrace.SpanStartOption{oteltrace.WithTimestamp(began), keyValues(attributes)}
	_, span := p.tracer.Start(context.Background(), name, options...)
	if !span.IsRecording() {
		return nil
	}
	return &Span{span}
}

// Begin begins a span below the one of ctx, and returns a context that has it. Without one there is nothing
// to do.
func Begin(ctx context.Context, name string, attributes ...Attribute) (context.Context, *Span) {
	parent := oteltrace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, nil
	}
	tracer := parent.TracerProvider().Tracer(scope)
	ctx, span := tracer.Start(ctx, name, keyValues(attributes))
	return ctx, &Span{span}
}

// Step is Begin for work that makes no spans of its own. It returns what ends the span.
func Step(ctx context.Context, name string, attributes ...Attribute) (end func(error)) {
	_, span := Begin(ctx, name, attributes...)
	return span.End
}

// Under returns ctx with the span, so that spans that begin in it are below this one.
func (s *Span) Under(ctx context.Context) context.Context {
	if s == nil {
		return ctx
	}
	return oteltrace.ContextWithSpan(ctx, s.span)
}

// End ends the span. An error makes it a failed one.
func (s *Span) End(err error) {
	if s == nil {
		return
	}
	if err != nil {
		s.span.SetStatus(codes.Error, err.Error())
	}
	s.span.End()
}

// Add adds a span below this one that has ended already.
func (s *Span) Add(name string, began, ended time.Time) {
	if s == nil {
		return
	}
	tracer := s.span.TracerProvider().Tracer(scope)
	ctx := s.Under(context.Background())
	_, span := tracer.Start(ctx, name, oteltrace.WithTimestamp(began))
	span.End(oteltrace.WithTimestamp(ended))
}

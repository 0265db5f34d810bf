package trace

import (
	"context"
	"path"

	"go.opentelemetry.io/otel/propagation"
	oteltrace "go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// header is the name of the W3C header, as a key of gRPC metadata and of the environment in capitals.
const header = "traceparent"

// carrier is gRPC metadata, for the library.
type carrier metadata.MD

func (c carrier) Get(key string) string {
	if values := metadata.MD(c).Get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}

func (c carrier) Set(key, value string) { metadata.MD(c).Set(key, value) }

func (c carrier) Keys() []string { return []string{header} }

// ClientOptions make a span of each unary call that is made in a trace, and hand the trace to the server.
func (p *Provider) ClientOptions() []grpc.DialOption {
	if p == nil {
		return nil
	}
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(call)}
}

func call(
	ctx context.Context,
	method string,
	request, reply any,
	conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker,
	options ...grpc.CallOption,
) error {
	ctx, span := Begin(ctx, path.Base(method))
	if span == nil {
		return invoke(ctx, method, request, reply, conn, options...)
	}

	outgoing, _ := metadata.FromOutgoingContext(ctx)
	outgoing = outgoing.Copy()
	propagation.TraceContext{}.Inject(ctx, carrier(outgoing))
	ctx = metadata.NewOutgoingContext(ctx, outgoing)

	err := invoke(ctx, method, request, reply, conn, options...)
	span.End(err)
	return err
}

// ServerOptions make a span of each unary call whose client has a trace. A call without one begins none.
func (p *Provider) ServerOptions() []grpc.ServerOption {
	if p == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(p.serve)}
}

func (p *Provider) serve(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
) (any, error) {
	incoming, _ := metadata.FromIncomingContext(ctx)
	ctx = propagation.TraceContext{}.Extract(ctx, carrier(incoming))
	if !oteltrace.SpanContextFromContext(ctx).IsSampled() {
		return handle(ctx, request)
	}

	ctx, span := p.tracer.Start(ctx, path.Base(info.FullMethod))
	reply, err := handle(ctx, request)
	(&Span{span}).End(err)
	return reply, err
}

// Parent returns the value of TRACEPARENT for a program that is run in the trace of ctx; empty if there is
// none.
func Parent(ctx context.Context) string {
	values := carrier{}
	propagation.TraceContext{}.Inject(ctx, values)
	return values.Get(header)
}

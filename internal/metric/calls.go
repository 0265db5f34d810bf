package metric

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Observer is told about a gRPC call when it has ended. The method is the full one (/package.Service/Method);
// streams are observed once, when they have ended. It is called by many goroutines at a time.
type Observer func(method string, code codes.Code, took time.Duration)

// ServerOptions have a server report each of its calls.
func ServerOptions(observe Observer) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(unaryServer(observe)),
		grpc.ChainStreamInterceptor(streamServer(observe)),
	}
}

// DialOptions have a connection report each call that is made with it.
func DialOptions(observe Observer) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(unaryClient(observe)),
		grpc.WithChainStreamInterceptor(streamClient(observe)),
	}
}

func unaryServer(observe Observer) grpc.UnaryServerInterceptor {
	return func(
		ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler,
	) (any, error) {
		start := time.Now()
		resp, err := next(ctx, req)
		observe(info.FullMethod, codeOf(err), time.Since(start))
		return resp, err
	}
}

func streamServer(observe Observer) grpc.StreamServerInterceptor {
	return func(
		srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler,
	) error {
		start := time.Now()
		err := next(srv, stream)
		observe(info.FullMethod, codeOf(err), time.Since(start))
		return err
	}
}

func unaryClient(observe Observer) grpc.UnaryClientInterceptor {
	return func(
		ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
		next grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		start := time.Now()
		err := next(ctx, method, req, reply, conn, opts...)
		observe(method, codeOf(err), time.Since(start))
		return err
	}
}

// streamClient observes the end of a stream also when its user lets it go by the end of its context.
func streamClient(observe Observer) grpc.StreamClientInterceptor {
	return func(
		ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string,
		next grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		start := time.Now()
		ended := grpc.OnFinish(func(err error) { observe(method, codeOf(err), time.Since(start)) })
		return next(ctx, desc, conn, method, append(opts, ended)...)
	}
}

// codeOf is the code that the other side gets for an error, which may be one of a context.
func codeOf(err error) codes.Code { return status.Code(contextError(err)) }

func contextError(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.FromContextError(err).Err()
}

// Calls counts and measures gRPC calls by method and code: NAMEs_total and NAME_duration_seconds. It is a
// collector.
type Calls struct {
	total *prometheus.CounterVec
	took  *prometheus.HistogramVec
}

// CallBuckets are the upper bounds of the times of calls, in seconds: a call over a local socket takes less
// than a millisecond, and a large image minutes.
var CallBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

// NewCalls returns the collector of calls with a name such as trivet_cri_call, described by what, such as
// "CRI calls".
func NewCalls(name, what string) *Calls {
	const ofStreams = " in seconds, by method. That of a stream is how long it was open."
	return &Calls{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: name + "s_total",
			Help: "Number of " + what + " that have ended, by method and gRPC code.",
		}, []string{"method", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    name + "_duration_seconds",
			Help:    "Duration of " + what + ofStreams,
			Buckets: CallBuckets,
		}, []string{"method"}),
	}
}

// Observe is an Observer. The methods must be those of services that are served or called: their number
// bounds that of the figures.
func (c *Calls) Observe(method string, code codes.Code, took time.Duration) {
	method = Method(method)
	c.total.WithLabelValues(method, code.String()).Inc()
	c.took.WithLabelValues(method).Observe(took.Seconds())
}

// Method returns the last element of a full method: CreateContainer.
func Method(full string) string {
	for i := len(full) - 1; i >= 0; i-- {
		if full[i] == '/' {
			return full[i+1:]
		}
	}
	return full
}

// Describe implements prometheus.Collector.
func (c *Calls) Describe(out chan<- *prometheus.Desc) {
	c.total.Describe(out)
	c.took.Describe(out)
}

// Collect implements prometheus.Collector.
func (c *Calls) Collect(out chan<- prometheus.Metric) {
	c.total.Collect(out)
	c.took.Collect(out)
}

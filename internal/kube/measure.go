package kube

import (
	"context"
	"net/url"
	"time"

	"k8s.io/client-go/tools/metrics"
)

// Meter is told about all requests to API servers. It is called by many goroutines at a time.
type Meter interface {
	// Answered is called for each answer with its HTTP status, <error> if there was none.
	Answered(code, method, host string)
	Took(verb, host string, took time.Duration)
	// Sent and Received have the sizes of bodies.
	Sent(verb, host string, bytes float64)
	Received(verb, host string, bytes float64)
}

// Measure has the meter told about the requests of all clients of the process. Only the first call has an
// effect: client-go has one place for it.
func Measure(m Meter) {
	metrics.Register(metrics.RegisterOpts{
		RequestLatency: latency{m},
		RequestSize:    size(m.Sent),
		ResponseSize:   size(m.Received),
		RequestResult:  result{m},
	})
}

type latency struct{ meter Meter }

// Observe implements metrics.LatencyMetric.
func (l latency) Observe(_ context.Context, verb string, u url.URL, took time.Duration) {
	l.meter.Took(verb, u.Host, took)
}

type size func(verb, host string, bytes float64)

// Observe implements metrics.SizeMetric.
func (s size) Observe(_ context.Context, verb, host string, bytes float64) { s(verb, host, bytes) }

type result struct{ meter Meter }

// Increment implements metrics.ResultMetric.
func (r result) Increment(_ context.Context, code, method, host string) {
	r.meter.Answered(code, method, host)
}

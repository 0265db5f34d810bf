package metric

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

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

// Observe counts a call that has ended, by its full method; it is an rpc.Observer. The methods must be those
// of services that are served or called: their number bounds that of the figures.
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

package kubeletmetric

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Client counts requests to the API server, by client-go's names.
type Client struct {
	group
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	sent     *prometheus.HistogramVec
	received *prometheus.HistogramVec
}

func newClient() *Client {
	sizes := []float64{64, 256, 512, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216}
	c := &Client{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rest_client_requests_total",
			Help: "Number of requests to API servers, by status code, method and host.",
		}, []string{"code", "method", "host"}),

		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rest_client_request_duration_seconds",
			Help:    "Duration of requests to API servers in seconds, by verb and host.",
			Buckets: []float64{.005, .025, .1, .25, .5, 1, 2, 4, 8, 15, 30, 60},
		}, []string{"verb", "host"}),
		sent: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rest_client_request_size_bytes",
			Help:    "Size of requests to API servers in bytes, by verb and host.",
			Buckets: sizes,
		}, []string{"verb", "host"}),
		received: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rest_client_response_size_bytes",
			Help:    "Size of answers of API servers in bytes, by verb and host.",
			Buckets: sizes,
		}, []string{"verb", "host"}),
	}
	c.group = group{c.requests, c.took, c.sent, c.received}
	return c
}

// Answered counts an answer. The code is that of HTTP, or <error> if there was none.
func (c *Client) Answered(code, method, host string) {
	c.requests.WithLabelValues(code, method, host).Inc()
}

// Took observes how long a request took.
func (c *Client) Took(verb, host string, took time.Duration) {
	c.took.WithLabelValues(verb, host).Observe(took.Seconds())
}

// Sent observes the size of a request's body.
func (c *Client) Sent(verb, host string, bytes float64) {
	c.sent.WithLabelValues(verb, host).Observe(bytes)
}

// Received observes the size of an answer's body.
func (c *Client) Received(verb, host string, bytes float64) {
	c.received.WithLabelValues(verb, host).Observe(bytes)
}

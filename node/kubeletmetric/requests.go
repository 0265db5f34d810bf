package kubeletmetric

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Requests counts requests to the node's HTTPS endpoint.
type Requests struct {
	group
	total    *prometheus.CounterVec
	took     *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
}

func newRequests() *Requests {
	labels := []string{"method", "path", "server_type", "long_running"}
	r := &Requests{
		total: counter("http_requests_total",
			"Number of requests to the node's endpoint, by method, root of the path and kind.", labels...),
		took: histogram("http_requests_duration_seconds",
			"Duration of requests to the node's endpoint in seconds, by method, root of the path and kind.",
			prometheus.DefBuckets, labels...),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Subsystem: subsystem,
			Name:      "http_inflight_requests",
			Help:      "Number of requests that are being answered, by method, root of the path and kind.",
		}, labels),
	}
	r.group = group{r.total, r.took, r.inFlight}
	return r
}

// Wrap counts what a handler answers.
func (r *Requests) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		path := rootOf(req.URL.Path)
		labels := []string{methodOf(req.Method), path, "readwrite", strconv.FormatBool(longRunning[path])}
		r.total.WithLabelValues(labels...).Inc()
		now := r.inFlight.WithLabelValues(labels...)
		now.Inc()
		began := time.Now()
		defer func() {
			now.Dec()
			r.took.WithLabelValues(labels...).Observe(time.Since(began).Seconds())
		}()

		next.ServeHTTP(w, req)
	})
}

// roots are the beginnings of the paths that are told apart. Others, which anybody can make up, are not.
var roots = words(`attach checkpoint configz containerLogs debug exec flagz healthz logs metrics
	metrics/cadvisor metrics/probes metrics/resource pods portForward run runningpods stats statusz`)

// longRunning are those whose requests last as long as the caller wants.
var longRunning = words("attach debug exec portForward")

func words(text string) map[string]bool {
	out := map[string]bool{}
	for word := range strings.FieldsSeq(text) {
		out[word] = true
	}
	return out
}

func rootOf(path string) string {
	path = strings.Trim(path, "/")
	if roots[path] {
		return path
	}
	if root, _, _ := strings.Cut(path, "/"); roots[root] {
		return root
	}
	return "other"
}

func methodOf(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete,
		http.MethodTrace, http.MethodOptions, http.MethodConnect:
		return method
	}
	return "other"
}

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

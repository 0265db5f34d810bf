package kubeletmetric

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trivet-node/trivet/node/podcertificate"
)

// Certificates shows how long the node's certificates are still valid, counts renewals that failed, and shows
// the states of the certificates of pods.
type Certificates struct {
	group
	client, server             *prometheus.Desc
	clientErrors, serverErrors prometheus.Counter
	rotated                    *prometheus.HistogramVec

	pods *prometheus.Desc

	// Client and Server return when the certificates end, the zero time for never. They are set before the
	// first scrape; nil: the agent has no such certificate.
	Client, Server func() time.Time

	// Pods returns how many certificates of pods there are of each kind. It is set before the first scrape;
	// nil: there are none.
	Pods func() map[podcertificate.Kind]int
}

func newCertificates() *Certificates {
	errors := func(name, of string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Subsystem: subsystem,
			Name:      name,
			Help:      "Number of renewals of the node's " + of + " certificate that failed.",
		})
	}
	c := &Certificates{
		client: desc("certificate_manager_client_ttl_seconds",
			"How long the node's client certificate is still valid, in seconds; +Inf without one."),
		server: desc("certificate_manager_server_ttl_seconds",
			"How long the node's serving certificate is still valid, in seconds; +Inf without one."),
		pods: desc("podcertificate_states",
			"Number of certificates of pods, by signer and state.", "signer_name", "state"),
		clientErrors: errors("certificate_manager_client_expiration_renew_errors", "client"),
		serverErrors: errors("server_expiration_renew_errors", "serving"),
	}
	c.rotated = histogram("certificate_manager_server_rotation_seconds",
		"Age of the serving certificates that were replaced, in seconds.", ages)
	c.group = group{c.clientErrors, c.serverErrors, c.rotated}
	return c
}

// ages are kubelet's buckets, a minute to four years.
var ages = []float64{
	60, 3600, 14400, 86400, 604800, 2592000, 7776000, 15552000, 31104000, 124416000,
}

// ClientRenewalFailed counts a renewal of the client certificate that failed.
func (c *Certificates) ClientRenewalFailed() { c.clientErrors.Inc() }

// ServerRenewalFailed counts a renewal of the serving certificate that failed.
func (c *Certificates) ServerRenewalFailed() { c.serverErrors.Inc() }

// ServerRotated counts a serving certificate that was replaced when it was so old.
func (c *Certificates) ServerRotated(age time.Duration) {
	c.rotated.WithLabelValues().Observe(age.Seconds())
}

// Describe implements prometheus.Collector.
func (c *Certificates) Describe(out chan<- *prometheus.Desc) {
	c.group.Describe(out)
	out <- c.client
	out <- c.server
	out <- c.pods
}

// Collect implements prometheus.Collector.
func (c *Certificates) Collect(out chan<- prometheus.Metric) {
	c.group.Collect(out)
	out <- gauge(c.client, left(c.Client))
	out <- gauge(c.server, left(c.Server))
	if c.Pods == nil {
		return
	}
	for kind, count := range c.Pods() {
		out <- gauge(c.pods, float64(count), kind.Signer, kind.State)
	}
}

func left(end func() time.Time) float64 {
	if end == nil {
		return math.Inf(1)
	}
	at := end()
	if at.IsZero() {
		return math.Inf(1)
	}
	return time.Until(at).Seconds()
}

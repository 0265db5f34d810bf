// Package daemonmetric is trivet-csi's own metrics (trivet_csi_*): CSI calls, volumes, and the space of each
// backend. What there is is measured when there is a scrape.
package daemonmetric

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/internal/metric"
)

const namespace = "trivet_csi"

// Volumes are those of the driver (volume.Store).
type Volumes interface {
	Space() ([]space.Use, error)
	InUse() int
	// Trouble returns what is wrong with each backend; nil: nothing.
	Trouble() map[string]error
}

// Set is all metrics of a driver.
type Set struct {
	Registry *prometheus.Registry

	// Calls observes the calls of CSI.
	Calls *metric.Calls
}

// New returns the metrics of a driver.
func New(volumes Volumes) *Set {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	}
	s := &Set{
		Registry: metric.NewRegistry("trivet-csi"),
		Calls:    metric.NewCalls("trivet_csi_call", "CSI calls"),
	}
	s.Registry.MustRegister(s.Calls, &counts{
		of:        volumes,
		volumes:   desc("volumes", "Number of volumes, by backend.", "backend"),
		inUse:     desc("volumes_in_use", "Number of volumes that are staged for pods."),
		healthy:   desc("backend_healthy", "Whether a backend works (1) or is in trouble (0).", "backend"),
		limit:     desc("pool_limit_bytes", "Bytes that a backend can promise to volumes in all.", "backend"),
		promised:  desc("pool_promised_bytes", "Bytes that a backend has promised to volumes.", "backend"),
		unwritten: desc("pool_unwritten_bytes", "Bytes promised and not yet taken from the disk.", "backend"),
		free:      desc("pool_free_bytes", "Bytes that a backend can still promise.", "backend"),
	})
	return s
}

// counts is what there is.
type counts struct {
	of                               Volumes
	volumes, inUse, healthy          *prometheus.Desc
	limit, promised, unwritten, free *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *counts) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.volumes, c.inUse, c.healthy, c.limit, c.promised, c.unwritten, c.free,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *counts) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}

	gauge(c.inUse, int64(c.of.InUse()))
	for backend, err := range c.of.Trouble() {
		healthy := int64(1)
		if err != nil {
			healthy = 0
		}
		gauge(c.healthy, healthy, backend)
	}

	uses, err := c.of.Space()
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.free, err)
		return
	}
	for _, use := range uses {
		gauge(c.volumes, use.Volumes, use.Backend)
		gauge(c.limit, use.Limit, use.Backend)
		gauge(c.promised, use.Promised, use.Backend)
		gauge(c.unwritten, use.Unwritten, use.Backend)
		gauge(c.free, use.Free, use.Backend)
	}
}

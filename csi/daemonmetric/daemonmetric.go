// Package daemonmetric is trivet-csi's own metrics (trivet_csi_*): CSI calls, volumes, and the space of each
// backend. What there is is measured when there is a scrape.
package daemonmetric

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/metric"
)

const namespace = "trivet_csi"

// Volumes are those of the driver (volume.Store).
type Volumes interface {
	Space() ([]space.Use, error)
	InUse() int
	// Trouble returns what is wrong with each backend; nil: nothing.
	Trouble() map[string]error
	Counts() map[string]volume.Counts
}

// Pool is a backend that grows ahead of its content (btrfspool.Pool).
type Pool interface {
	// Room measures it in bytes. One that is not there, or does not grow, is an error.
	Room() (size, content, headroom int64, err error)
}

// Set is all metrics of a driver.
type Set struct {
	Registry *prometheus.Registry

	// Calls observes the calls of CSI.
	Calls *metric.Calls
}

// New returns the metrics of a driver; pools are those backends that grow, by name.
func New(volumes Volumes, pools map[string]Pool) *Set {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	}
	s := &Set{
		Registry: metric.NewRegistry("trivet-csi"),
		Calls:    metric.NewCalls("trivet_csi_call", "CSI calls"),
	}

	s.Registry.MustRegister(s.Calls, &counts{
		of:      volumes,
		pools:   pools,
		volumes: desc("volumes", "Number of volumes, by backend.", "backend"),
		inUse:   desc("volumes_in_use", "Number of volumes that are staged for pods."),
		healthy: desc("backend_healthy",
			"Whether a backend and its disk work (1) or are in trouble (0).", "backend"),
		limit:     desc("pool_limit_bytes", "Bytes that a backend can promise to volumes in all.", "backend"),
		promised:  desc("pool_promised_bytes", "Bytes that a backend has promised to volumes.", "backend"),
		unwritten: desc("pool_unwritten_bytes", "Bytes promised and not yet taken from the disk.", "backend"),
		free:      desc("pool_free_bytes", "Bytes that a backend can still promise.", "backend"),
		size:      desc("pool_size_bytes", "Bytes that a pool has taken from the disk.", "backend"),
		content:   desc("pool_content_bytes", "Bytes in use in a pool.", "backend"),
		headroom: desc("pool_headroom_bytes",
			"Bytes that can be written to a pool before it has to grow.", "backend"),
		snapshots: desc("snapshots", "Number of snapshots, by backend.", "backend"),
		kept:      desc("snapshots_kept_bytes", "Bytes that snapshots keep of their volumes.", "backend"),
		damaged: desc("volumes_damaged",
			"Number of volumes and snapshots that cannot be used, by backend.", "backend"),
		stuck: desc("volumes_stuck",
			"Number of volumes whose creation or deletion has failed, and is tried again.", "backend"),
	})
	return s
}

// counts is what there is.
type counts struct {
	of                               Volumes
	pools                            map[string]Pool
	volumes, inUse, healthy          *prometheus.Desc
	limit, promised, unwritten, free *prometheus.Desc
	size, content, headroom          *prometheus.Desc
	snapshots, kept, damaged, stuck  *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *counts) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.volumes, c.inUse, c.healthy, c.limit, c.promised, c.unwritten, c.free,
		c.size, c.content, c.headroom, c.snapshots, c.kept, c.damaged, c.stuck,
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

	for backend, n := range c.of.Counts() {
		gauge(c.snapshots, n.Snapshots, backend)
		gauge(c.kept, n.Kept, backend)
		gauge(c.damaged, n.Damaged, backend)
		gauge(c.stuck, n.Stuck, backend)
	}
	for backend, pool := range c.pools {
		size, content, headroom, err := pool.Room()
		if err != nil {
			// What is wrong with it is said by healthy.
			continue
		}
		gauge(c.size, size, backend)
		gauge(c.content, content, backend)
		gauge(c.headroom, headroom, backend)
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

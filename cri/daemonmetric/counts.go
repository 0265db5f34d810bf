package daemonmetric

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/sandbox"
)

// Sandboxes are those of the server (sandbox.Service).
type Sandboxes interface{ List() []sandbox.Record }

// Containers are those of the server (container.Service).
type Containers interface{ List() []container.Record }

// Images are those of the server (image.Store).
type Images interface {
	List() []image.Image
	Usage() (bytes, inodes int64)
}

// Monitor is the connection to trivet-monitor (monitor.Client).
type Monitor interface {
	// Connected reports whether there is a connection, and Connections how many there have been.
	Connected() bool
	Connections() int64
}

// Inventory is what the server has.
type Inventory struct {
	Sandboxes  Sandboxes
	Containers Containers
	Images     Images
	Monitor    Monitor
}

// Count adds what there is, counted when there is a scrape.
func (s *Set) Count(of Inventory) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	}
	s.Registry.MustRegister(&counts{
		Inventory:  of,
		sandboxes:  desc("sandboxes", "Number of pod sandboxes, by state.", "state"),
		containers: desc("containers", "Number of containers, by state.", "state"),
		images:     desc("images", "Number of images."),
		imageBytes: desc("image_bytes", "Space that images take on the disk, in bytes."),
		connected: desc("monitor_connected",
			"Whether trivet-cri is connected to trivet-monitor (1) or not (0)."),
		connections: desc("monitor_connections_total",
			"Number of connections to trivet-monitor; more than one: it had ended and was started again."),
	})
}

type counts struct {
	Inventory
	sandboxes, containers  *prometheus.Desc
	images, imageBytes     *prometheus.Desc
	connected, connections *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *counts) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.sandboxes, c.containers, c.images, c.imageBytes, c.connected, c.connections,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *counts) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}

	boxes := map[life.SandboxState]int{}
	for _, r := range c.Sandboxes.List() {
		boxes[r.State]++
	}
	for _, state := range []life.SandboxState{life.Ready, life.Stopped} {
		gauge(c.sandboxes, float64(boxes[state]), string(state))
	}

	containers := map[life.State]int{}
	for _, r := range c.Containers.List() {
		containers[r.State]++
	}
	for _, state := range []life.State{life.Created, life.Running, life.Exited} {
		gauge(c.containers, float64(containers[state]), state.String())
	}

	gauge(c.images, float64(len(c.Images.List())))
	bytes, _ := c.Images.Usage()
	gauge(c.imageBytes, float64(bytes))

	connected := 0.0
	if c.Monitor.Connected() {
		connected = 1
	}
	gauge(c.connected, connected)
	out <- prometheus.MustNewConstMetric(
		c.connections, prometheus.CounterValue, float64(c.Monitor.Connections()))
}

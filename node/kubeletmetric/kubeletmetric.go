// Package kubeletmetric is the agent's own metrics, by the names, labels and buckets of kubelet 1.37
// (pkg/kubelet/metrics, component-base and client-go), so that rules and dashboards made for kubelet work.
// There is a type for each part of the agent that counts; the part calls it through an interface of its own,
// and what can be counted when there is a scrape is counted then. docs/metrics.md says what is served.
package kubeletmetric

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trivet-node/trivet/internal/metric"
	"github.com/trivet-node/trivet/node/kubeletconfig"
)

const subsystem = "kubelet"

// Config describes the node.
type Config struct {
	NodeName string

	// Version is the node's version, as the Node object shows it: v1.37.2-trivet.0.1.0.
	Version string

	// CgroupVersion is 1 or 2.
	CgroupVersion int

	// Started is when the agent was started, and Booted when the machine was; zero: it is not known.
	Started, Booted time.Time

	// Gates are the feature gates.
	Gates []kubeletconfig.Gate
}

// Set is all metrics of an agent. Its parts count from the start, whether or not anybody asks.
type Set struct {
	// Registry has them. Parts that have collectors of their own register them here.
	Registry *prometheus.Registry

	Runtime      *Runtime
	Pods         *Pods
	Resizes      *Resizes
	Volumes      *Volumes
	Images       *Images
	Requests     *Requests
	Client       *Client
	Certificates *Certificates
	Startup      *Startup
}

// New returns the metrics of a node, all of them zero.
func New(cfg Config) *Set {
	s := &Set{
		Registry:     metric.NewRegistry("trivet-node"),
		Runtime:      newRuntime(),
		Pods:         newPods(),
		Resizes:      newResizes(),
		Volumes:      newVolumes(),
		Images:       newImages(),
		Requests:     newRequests(),
		Client:       newClient(),
		Certificates: newCertificates(),
		Startup:      newStartup(cfg.Started, cfg.Booted),
	}

	s.Registry.MustRegister(
		newNode(cfg),
		s.Runtime,
		s.Pods,
		s.Resizes,
		s.Volumes,
		s.Images,
		s.Requests,
		s.Client,
		s.Certificates,
		s.Startup,
	)
	return s
}

// Handler answers scrapes, in Prometheus' text format as kubelet does: OpenMetrics would change the names of
// kubelet's counters that do not end with _total.
func (s *Set) Handler(log *slog.Logger) http.Handler { return metric.TextHandler(s.Registry, log) }

// group is a collector that consists of others.
type group []prometheus.Collector

// Describe implements prometheus.Collector.
func (g group) Describe(out chan<- *prometheus.Desc) {
	for _, c := range g {
		c.Describe(out)
	}
}

// Collect implements prometheus.Collector.
func (g group) Collect(out chan<- prometheus.Metric) {
	for _, c := range g {
		c.Collect(out)
	}
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	opts := prometheus.CounterOpts{Subsystem: subsystem, Name: name, Help: help}
	return prometheus.NewCounterVec(opts, labels)
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Subsystem: subsystem,
		Name:      name,
		Help:      help,
		Buckets:   buckets,
	}, labels)
}

// desc describes a figure that is made when there is a scrape.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("", subsystem, name), help, labels, nil)
}

// gauge is such a figure.
func gauge(d *prometheus.Desc, value float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

// Package netdmetric is trivet-netd's own metrics (trivet_netd_*): its passes, what they had to repair, the
// addresses of the node's pods, and the calls that trivet-cni, which ends with each call, has left a record
// of (trivet_cni_*).
package netdmetric

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/netd"
	"github.com/trivet-node/trivet/cni/tally"
	"github.com/trivet-node/trivet/internal/metric"
)

const namespace = "trivet_netd"

// Set is all metrics of a daemon.
type Set struct {
	Registry *prometheus.Registry

	passes  *prometheus.CounterVec
	took    prometheus.Histogram
	changes *prometheus.CounterVec
	entries *prometheus.CounterVec
	repairs *prometheus.CounterVec
	writes  prometheus.Counter

	errors, notes, nodes, routes, tunnels, at prometheus.Gauge

	// enforced, enforcedTook and updates count passes over network policies; policies and isolated describe
	// the last one.
	enforced           *prometheus.CounterVec
	enforcedTook       prometheus.Histogram
	updates            prometheus.Counter
	policies, isolated prometheus.Gauge
	refused            prometheus.Gauge

	// addresses and taken describe the pool, calls and took what the plugin has counted.
	addresses, taken *prometheus.Desc
	calls, callsTook *prometheus.Desc
	dropped          *prometheus.Desc
	plugin           Plugin
	rules            Rules

	// mu guards last.
	mu   sync.Mutex
	last netd.Report
}

// Plugin is what trivet-cni has counted (tally.File).
type Plugin interface{ Counts() []tally.Count }

// Rules are those of network policies (filter.Filter).
type Rules interface {
	// Dropped counts the packets that they have dropped in each direction.
	Dropped() ([2]uint64, error)
}

// New returns the metrics, all of them zero but those of the plugin and of the rules, which may be nil.
func New(plugin Plugin, rules Rules) *Set {
	s := &Set{
		plugin:   plugin,
		rules:    rules,
		Registry: metric.NewRegistry("trivet-netd"),
		passes:   counters("passes_total", "Number of passes, by result.", "result"),
		changes:  counters("route_changes_total", "Number of routes that were changed, by kind.", "change"),
		entries: counters("tunnel_changes_total",
			"Number of interfaces, addresses and entries of tunnels that were changed, by kind.", "change"),
		repairs: counters("repairs_total",
			"Number of passes that wrote what somebody else had removed, by kind.", "what"),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace,
			Name:      "pass_duration_seconds",
			Help:      "Duration of passes in seconds.",
			Buckets:   metric.CallBuckets,
		}),
		writes: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace,
			Name:      "config_writes_total",
			Help:      "Number of times the network configuration was written.",
		}),
		errors: gauge("pass_errors", "Number of errors of the last pass, which is repeated soon."),
		notes: gauge("pass_notes",
			"Number of things that only somebody else can mend, as of the last pass."),
		nodes:   gauge("nodes", "Number of Nodes of the cluster."),
		routes:  gauge("routes", "Number of routes to pods of other nodes."),
		tunnels: gauge("tunnelled_nodes", "Number of Nodes that are reached through tunnels."),
		at:      gauge("last_pass_timestamp_seconds", "Unix time at which the last pass began."),
	}

	s.addPolicyMetrics()
	s.addresses = desc("pool_addresses", "Number of addresses for pods, by subnet.", "subnet")
	s.taken = desc("pool_addresses_taken", "Number of addresses that pods have, by subnet.", "subnet")

	s.calls = prometheus.NewDesc("trivet_cni_calls_total",
		"Number of calls of trivet-cni since the boot, by command and the CNI code of the error; 0: none.",
		[]string{"command", "code"}, nil)
	s.callsTook = prometheus.NewDesc("trivet_cni_call_seconds_total",
		"Duration of these calls together in seconds.", []string{"command", "code"}, nil)

	// What has not happened yet is zero.
	for _, what := range []string{"rules", "host_ports"} {
		s.repairs.WithLabelValues(what)
	}

	for _, change := range []string{"added", "deleted"} {
		s.changes.WithLabelValues(change)
		s.entries.WithLabelValues(change)
	}

	s.Registry.MustRegister(s, s.passes, s.changes, s.entries, s.repairs, s.took, s.writes,
		s.errors, s.notes, s.nodes, s.routes, s.tunnels, s.at,
		s.enforced, s.enforcedTook, s.updates, s.policies, s.isolated, s.refused)
	return s
}

func counters(name, help, label string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(
		prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, []string{label})
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
}

func desc(name, help, label string) *prometheus.Desc {
	full := prometheus.BuildFQName(namespace, "", name)
	return prometheus.NewDesc(full, help, []string{label}, nil)
}

// Passed counts a pass.
func (s *Set) Passed(r netd.Report) {
	result := "ok"
	if len(r.Errors) > 0 {
		result = "error"
	}

	s.passes.WithLabelValues(result).Inc()
	s.took.Observe(r.Took.Seconds())

	s.changes.WithLabelValues("added").Add(float64(r.RoutesAdded))
	s.changes.WithLabelValues("deleted").Add(float64(r.RoutesDeleted))
	s.entries.WithLabelValues("added").Add(float64(r.TunnelsAdded))
	s.entries.WithLabelValues("deleted").Add(float64(r.TunnelsDeleted))
	if r.RulesRestored {
		s.repairs.WithLabelValues("rules").Inc()
	}
	if r.PortsRestored {
		s.repairs.WithLabelValues("host_ports").Inc()
	}
	if r.ConfigWritten {
		s.writes.Inc()
	}

	s.errors.Set(float64(len(r.Errors)))
	s.notes.Set(float64(len(r.Notes)))
	s.nodes.Set(float64(r.Nodes))
	s.routes.Set(float64(r.Routes))
	s.tunnels.Set(float64(r.Tunnels))
	s.at.Set(float64(r.At.Unix()))

	s.mu.Lock()
	defer s.mu.Unlock()

	s.last = r
}

// Describe implements prometheus.Collector.
func (s *Set) Describe(out chan<- *prometheus.Desc) {
	out <- s.addresses
	out <- s.taken
	out <- s.calls
	out <- s.callsTook
	out <- s.dropped
}

// Collect implements prometheus.Collector: it counts what there is at the moment.
func (s *Set) Collect(out chan<- prometheus.Metric) {
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()

	if s.plugin != nil {
		s.collectCalls(out)
	}

	s.collectDropped(out)

	uses, err := last.Pool.Uses(last.Ranges)
	if err != nil {
		out <- prometheus.NewInvalidMetric(s.taken, err)
		return
	}
	s.collectPool(out, uses)
}

func (s *Set) collectPool(out chan<- prometheus.Metric, uses []ipam.Use) {
	for _, use := range uses {
		subnet := use.Range.Subnet.String()
		out <- prometheus.MustNewConstMetric(s.addresses, prometheus.GaugeValue, use.Total, subnet)
		out <- prometheus.MustNewConstMetric(s.taken, prometheus.GaugeValue, float64(use.Taken), subnet)
	}
}

func (s *Set) collectCalls(out chan<- prometheus.Metric) {
	for _, c := range s.plugin.Counts() {
		out <- prometheus.MustNewConstMetric(
			s.calls, prometheus.CounterValue, float64(c.Calls), c.Verb, c.Code)
		out <- prometheus.MustNewConstMetric(
			s.callsTook, prometheus.CounterValue, c.Took.Seconds(), c.Verb, c.Code)
	}
}

package kubeletmetric

import (
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trivet-node/trivet/node/nodestatus"
)

// newNode returns what does not change while the agent runs.
func newNode(cfg Config) prometheus.Collector {
	name := desc("node_name", "The name of the node, as a label of a constant 1.", "node")
	groups := desc("cgroup_version", "Version of the node's control groups.")
	build := prometheus.NewDesc("kubernetes_build_info",
		"The version of Kubernetes, as labels of a constant 1.",
		[]string{
			"major", "minor", "git_version", "git_commit", "git_tree_state",
			"build_date", "go_version", "compiler", "platform",
		}, nil)
	feature := prometheus.NewDesc("kubernetes_feature_enabled",
		"Whether a feature gate is on (1) or off (0), by name and stage.", []string{"name", "stage"}, nil)

	major, rest, _ := strings.Cut(strings.TrimPrefix(cfg.Version, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	platform := runtime.GOOS + "/" + runtime.GOARCH
	metrics := []prometheus.Metric{
		gauge(name, 1, cfg.NodeName),
		gauge(groups, float64(cfg.CgroupVersion)),
		gauge(build, 1, major, minor, cfg.Version, "", "", "", runtime.Version(), runtime.Compiler, platform),
	}

	for _, g := range cfg.Gates {
		on := 0.0
		if g.Enabled {
			on = 1
		}
		metrics = append(metrics, gauge(feature, on, g.Name, g.Stage))
	}

	return constants{descs: []*prometheus.Desc{name, groups, build, feature}, metrics: metrics}
}

// constants is a collector of what never changes.
type constants struct {
	descs   []*prometheus.Desc
	metrics []prometheus.Metric
}

// Describe implements prometheus.Collector.
func (c constants) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c constants) Collect(out chan<- prometheus.Metric) {
	for _, m := range c.metrics {
		out <- m
	}
}

// Startup shows how long the start of the node took, if this agent has registered it: a Node that exists
// already is not new.
type Startup struct {
	group
	started, booted time.Time

	before, registration, after, total prometheus.Gauge

	// registering and registered are set by the goroutine that registers the node, before it is ready.
	registering, registered time.Time
}

func newStartup(started, booted time.Time) *Startup {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{
			Subsystem: subsystem,
			Name:      name,
			Help:      help,
		})
	}
	s := &Startup{
		started: started,
		booted:  booted,
		before: gauge("node_startup_pre_registration_duration_seconds",
			"Time from the start of the agent to its first attempt to register a new node, in seconds."),
		registration: gauge("node_startup_registration_duration_seconds",
			"Time from the first attempt to register a new node until it is registered, in seconds."),
		after: gauge("node_startup_post_registration_duration_seconds",
			"Time from the registration of a new node until it is ready, in seconds."),
		total: gauge("node_startup_duration_seconds",
			"Time from the boot of the machine until its new node is ready, in seconds."),
	}

	untilAgent := gauge("node_startup_pre_kubelet_duration_seconds",
		"Time from the boot of the machine to the start of the agent, in seconds.")
	if !booted.IsZero() {
		untilAgent.Set(started.Sub(booted).Seconds())
	}
	s.group = group{untilAgent, s.before, s.registration, s.after, s.total}
	return s
}

// Reached notes a step of the start.
func (s *Startup) Reached(m nodestatus.Milestone) { s.reached(m, time.Now()) }

func (s *Startup) reached(m nodestatus.Milestone, now time.Time) {
	switch m {
	case nodestatus.Registering:
		s.registering = now
	case nodestatus.Registered:
		// A Node that somebody deletes is registered again; the start is over then.
		if !s.registered.IsZero() {
			return
		}
		s.registered = now
		s.before.Set(s.registering.Sub(s.started).Seconds())
		s.registration.Set(now.Sub(s.registering).Seconds())
	case nodestatus.Ready:
		if s.registered.IsZero() {
			return
		}
		s.after.Set(now.Sub(s.registered).Seconds())
		if !s.booted.IsZero() {
			s.total.Set(now.Sub(s.booted).Seconds())
		}
	}
}

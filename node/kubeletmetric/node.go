package kubeletmetric

import (
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
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

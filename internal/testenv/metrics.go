package testenv

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Metric is a row of the lists of metrics in docs/data.
type Metric struct {
	Page string // such as /metrics/cadvisor
	Name string

	// State is served, not, or meaningless, and Why says why it is not served.
	State string
	Why   string

	// Labels are those that others filter and sum by.
	Labels []string
	// Gone is whether kubelet 1.37 does not have it any more.
	Gone bool
}

// KubeletMetrics returns the metrics of a page of kubelet's, each with its State.
func KubeletMetrics(tb testing.TB, page string) []Metric {
	tb.Helper()
	return metricsOf(tb, "kubelet-metrics.json", page)
}

// MixinMetrics returns the metrics of a page that the rules and dashboards for kubelet use, with their
// Labels, but for those that are gone.
func MixinMetrics(tb testing.TB, page string) []Metric {
	tb.Helper()
	var out []Metric
	for _, m := range metricsOf(tb, "mixin-metrics.json", page) {
		if !m.Gone {
			out = append(out, m)
		}
	}
	return out
}

func metricsOf(tb testing.TB, file, page string) []Metric {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join(root(tb), "docs/data", file))
	if err != nil {
		tb.Fatal(err)
	}

	var list struct{ Metrics []Metric }
	if err := json.Unmarshal(data, &list); err != nil {
		tb.Fatalf("%s: %v", file, err)
	}

	var out []Metric
	for _, m := range list.Metrics {
		if m.Page == page {
			out = append(out, m)
		}
	}

	if len(out) == 0 {
		tb.Fatalf("%s has no metrics of %s", file, page)
	}

	return out
}

// root is the directory of the module that the test is in.
func root(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}

	for dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}

		dir = filepath.Dir(dir)
	}

	tb.Fatal("the test is in no module")
	return ""
}

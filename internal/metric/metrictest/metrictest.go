// Package metrictest compares the metrics of a daemon with those that the documents list.
package metrictest

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Metric is one of a daemon's, as the documents have it.
type Metric struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	Labels []string `json:"labels,omitempty"`
	Help   string   `json:"help"`
}

// own are the beginnings of names that are of this project; those of the process and of the Go runtime are
// documented by their library.
const own = "trivet_"

// Compare fails unless docs/data/metrics/COMPONENT.json has what is served, no more and no less. All metrics
// must have a sample. With TRIVET_WRITE_DOCS set it writes the file.
func Compare(t *testing.T, component string, served prometheus.Gatherer) {
	t.Helper()
	got, err := json.MarshalIndent(list(t, served), "", " ")
	if err != nil {
		t.Fatal(err)
	}

	got = append(got, '\n')
	file := filepath.Join(root(t), "docs", "data", "metrics", component+".json")
	if os.Getenv("TRIVET_WRITE_DOCS") != "" {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}

	want, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is not what is served: run this test with TRIVET_WRITE_DOCS=1\n%s", file, got)
	}
}

// list is what is served of the project's own, by name.
func list(t *testing.T, served prometheus.Gatherer) []Metric {
	t.Helper()
	families, err := served.Gather()
	if err != nil {
		t.Fatal(err)
	}

	var all []Metric
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), own) {
			continue
		}

		m := Metric{
			Name: f.GetName(),
			Type: strings.ToLower(f.GetType().String()),
			Help: f.GetHelp(),
		}
		for _, label := range f.GetMetric()[0].GetLabel() {
			m.Labels = append(m.Labels, label.GetName())
		}
		slices.Sort(m.Labels)
		all = append(all, m)
	}
	return all
}

// root is the directory of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}

	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "docs", "data", "metrics")); err == nil {
			return dir
		}
	}
	t.Fatal("no repository with docs/data/metrics above the test")
	return ""
}

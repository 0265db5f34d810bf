package check

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// The directories of what is checked, and of the lists of what is served.
const (
	files = ".."
	lists = "../../../docs/data"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func rules(t *testing.T) []rulefmt.RuleGroup {
	t.Helper()
	path := filepath.Join(files, "rules.yaml")
	groups, errs := rulefmt.ParseFile(path, false, model.UTF8Validation, promql(), slog.Default())
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return groups.Groups
}

func promql() parser.Parser { return parser.NewParser(parser.Options{}) }

// served has the names of all metrics that there are: those that the daemons and the agent serve, that
// Prometheus makes of a scrape, and that the rules record.
func served(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{"up": true}
	own, err := filepath.Glob(filepath.Join(lists, "metrics", "*.json"))
	if err != nil || len(own) == 0 {
		t.Fatalf("%v, %v", own, err)
	}

	for _, file := range own {
		var metrics []struct{ Name string }
		decode(t, read(t, file), &metrics)
		for _, m := range metrics {
			names[m.Name] = true
		}
	}

	var kubelet struct {
		Metrics []struct{ Name, State string }
	}
	decode(t, read(t, filepath.Join(lists, "kubelet-metrics.json")), &kubelet)
	for _, m := range kubelet.Metrics {
		if m.State == "served" {
			names[m.Name] = true
		}
	}

	for _, group := range rules(t) {
		for _, rule := range group.Rules {
			if rule.Record != "" {
				names[rule.Record] = true
			}
		}
	}
	return names
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

// variable finds what Grafana fills in.
var variable = regexp.MustCompile(`\$(__rate_interval|\w+)`)

// used returns the names of the metrics that an expression selects.
func used(t *testing.T, expression string) []string {
	t.Helper()
	plain := variable.ReplaceAllStringFunc(expression, func(name string) string {
		if name == "$__rate_interval" {
			return "5m"
		}
		return "x"
	})

	parsed, err := promql().ParseExpr(plain)
	if err != nil {
		t.Errorf("%s: %v", expression, err)
		return nil
	}

	var names []string
	for _, selectors := range parser.ExtractSelectors(parsed) {
		for _, m := range selectors {
			if m.Name == labels.MetricName {
				names = append(names, m.Value)
			}
		}
	}
	return names
}

// has reports whether a metric is served; histograms have three names.
func has(served map[string]bool, name string) bool {
	for _, suffix := range []string{"", "_bucket", "_count", "_sum"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && served[base] {
			return true
		}
	}
	return false
}

func TestRulesAskForWhatIsServed(t *testing.T) {
	served := served(t)
	for _, group := range rules(t) {
		for _, rule := range group.Rules {
			names := used(t, rule.Expr)
			if len(names) == 0 {
				t.Errorf("%s%s selects nothing", rule.Alert, rule.Record)
			}
			for _, name := range names {
				if !has(served, name) {
					t.Errorf("%s%s: nobody serves %s", rule.Alert, rule.Record, name)
				}
			}
			if rule.Alert != "" && (rule.Annotations["summary"] == "" || rule.Labels["severity"] == "") {
				t.Errorf("%s has no summary or no severity", rule.Alert)
			}
		}
	}
}

func TestTheDashboardAsksForWhatIsServed(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
	}
	decode(t, read(t, filepath.Join(files, "dashboard.json")), &dashboard)

	served := served(t)
	for _, panel := range dashboard.Panels {
		if panel.Type != "row" && len(panel.Targets) == 0 {
			t.Errorf("panel %q shows nothing", panel.Title)
		}
		for _, target := range panel.Targets {
			for _, name := range used(t, target.Expr) {
				if !has(served, name) {
					t.Errorf("panel %q: nobody serves %s", panel.Title, name)
				}
			}
		}
	}
}

// operatorHead is what makes the rules an object of prometheus-operator.
const operatorHead = `# rules.yaml for prometheus-operator; made by the test in check (TRIVET_WRITE_DOCS=1).
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: trivet
  namespace: monitoring
  labels: {app.kubernetes.io/part-of: trivet}
spec:
`

func TestTheOperatorHasTheSameRules(t *testing.T) {
	text := read(t, filepath.Join(files, "rules.yaml"))
	_, groups, found := strings.Cut(text, "\ngroups:\n")
	if !found {
		t.Fatal("rules.yaml has no groups")
	}

	want := operatorHead
	for line := range strings.Lines("groups:\n" + groups) {
		if strings.TrimSpace(line) != "" {
			line = "  " + line
		}
		want += line
	}

	path := filepath.Join(files, "operator-rules.yaml")
	if os.Getenv("TRIVET_WRITE_DOCS") != "" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if read(t, path) != want {
		t.Errorf("%s is not rules.yaml: run this test with TRIVET_WRITE_DOCS=1", path)
	}
}

// Both ways to scrape read the same pages under the same names.
func TestBothScrapeConfigurationsReadTheSamePages(t *testing.T) {
	var plain struct {
		Jobs []struct {
			Name string `yaml:"job_name"`
			Path string `yaml:"metrics_path"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(files, "scrape.yaml"))), &plain); err != nil {
		t.Fatal(err)
	}

	want := map[string]string{}
	for _, job := range plain.Jobs {
		want[job.Name] = job.Path
	}
	if len(want) < 6 {
		t.Errorf("scrape.yaml has the jobs %v", want)
	}

	decoder := yaml.NewDecoder(strings.NewReader(read(t, filepath.Join(files, "operator-scrape.yaml"))))
	for {
		var object struct {
			Kind     string
			Metadata struct{ Name string }
			Spec     struct {
				Path string `yaml:"metricsPath"`
			}
		}
		if decoder.Decode(&object) != nil {
			break
		}
		if object.Kind != "ScrapeConfig" {
			continue
		}
		name := object.Metadata.Name
		if want[name] != object.Spec.Path {
			t.Errorf("%s reads %q, want %q", name, object.Spec.Path, want[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("the operator does not read %v", want)
	}
}

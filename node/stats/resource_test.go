package stats

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/exposition"
	"github.com/trivet-node/trivet/node/usage"
)

// samples are the lines of a page without help and types.
func samples(t *testing.T, source exposition.Source) []string {
	t.Helper()
	var text strings.Builder
	w := exposition.NewWriter(&text)
	if _, err := source(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}

	var out []string
	for line := range strings.Lines(text.String()) {
		if !strings.HasPrefix(line, "#") {
			out = append(out, strings.TrimSuffix(line, "\n"))
		}
	}

	return out
}

// A container that has ended has no figures. A start time of a container without its CPU time makes
// metrics-server drop the whole pod.
func TestResourcePageIsOfContainersThatHaveAll(t *testing.T) {
	const app = `{container="app",namespace="shop",pod="web"} `
	const web = `{namespace="shop",pod="web"} `
	want := []string{
		`node_cpu_usage_seconds_total 2 1000010000`,
		`node_memory_working_set_bytes 4096 1000010000`,
		`node_swap_usage_bytes 10 1000010000`,
		`container_cpu_usage_seconds_total` + app + `2 1000010000`,
		`container_memory_working_set_bytes` + app + `4096 1000010000`,
		`container_swap_usage_bytes` + app + `10 1000010000`,
		`container_swap_limit_bytes` + app + `50 1000010000`,
		`container_start_time_seconds` + app + `1000000`,
		`pod_cpu_usage_seconds_total` + web + `2 1000010000`,
		`pod_memory_working_set_bytes` + web + `4096 1000010000`,
		`pod_swap_usage_bytes` + web + `10 1000010000`,
		`resource_scrape_error 0`,
	}

	f := &fake{}
	if diff := cmp.Diff(want, samples(t, collect(t, f).Resource)); diff != "" {
		t.Error(diff)
	}
	if !cmp.Equal(f.asked, []usage.Depth{usage.CPUAndMemory}) {
		t.Errorf("asked for %v: more than CPU and memory is not needed", f.asked)
	}
}

func TestResourcePageHasTheNamesOfTheList(t *testing.T) {
	var text strings.Builder
	w := exposition.NewWriter(&text)
	if _, err := collect(t, &fake{}).Resource(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}

	listed := 0
	for _, m := range testenv.KubeletMetrics(t, "/metrics/resource") {
		served := strings.Contains(text.String(), "# TYPE "+m.Name+" ")
		if served != (m.State == "served") {
			t.Errorf("%s: served %v, docs/data/kubelet-metrics.json says %q", m.Name, served, m.State)
		}
		if served {
			listed++
		}
	}
	if n := strings.Count(text.String(), "# TYPE "); n != listed {
		t.Errorf("%d metrics, docs/data/kubelet-metrics.json has %d", n, listed)
	}
}

func TestResourcePageOfTheNodeDoesNotNeedTheRuntime(t *testing.T) {
	c := collect(t, &fake{failed: true})
	want := []string{
		`node_cpu_usage_seconds_total 2 1000010000`,
		`node_memory_working_set_bytes 4096 1000010000`,
		`node_swap_usage_bytes 10 1000010000`,
		`resource_scrape_error 1`,
	}
	if diff := cmp.Diff(want, samples(t, c.Resource)); diff != "" {
		t.Error(diff)
	}

	until, err := c.Resource(t.Context(), exposition.NewWriter(&strings.Builder{}))
	if err != nil || !until.IsZero() {
		t.Errorf("a page that lacks pods is good until %v, %v", until, err)
	}
}

func TestCadvisorPageHasTheMachineAndTheContainers(t *testing.T) {
	got := strings.Join(samples(t, collect(t, &fake{}).Cadvisor), "\n")
	for _, want := range []string{
		`machine_memory_bytes{boot_id="`,
		`container_memory_working_set_bytes{container="app",id="/kubepods/podu/id-app"`,
		`container_scrape_error 0`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

package stats

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// samples are the lines of a set of metrics without help and types.
func samples(t *testing.T, c *Collector, set string) []string {
	t.Helper()
	text, err := c.Metrics(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}

	var out []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			out = append(out, strings.TrimSuffix(line, "\n"))
		}
	}

	return out
}

// The container that has ended has no figures, the young one none yet. A start time of a container without
// its CPU time makes metrics-server drop the whole pod.
func TestResourceMetricsAreOfRunningContainersThatHaveAll(t *testing.T) {
	want := []string{
		`node_cpu_usage_seconds_total 15077.3`,
		`node_memory_working_set_bytes 1.982038016e+09`,
		`container_cpu_usage_seconds_total{container="app",namespace="shop",pod="web"} 2`,
		`container_memory_working_set_bytes{container="app",namespace="shop",pod="web"} 4096`,
		`container_start_time_seconds{container="app",namespace="shop",pod="web"} 1e+06`,
		`pod_cpu_usage_seconds_total{namespace="shop",pod="web"} 2`,
		`pod_memory_working_set_bytes{namespace="shop",pod="web"} 8192`,
		`resource_scrape_error 0`,
		`scrape_error 0`,
	}
	if diff := cmp.Diff(want, samples(t, collect(t, newFake()), "resource")); diff != "" {
		t.Error(diff)
	}
}

func TestResourceMetricsOfTheNodeDoNotNeedTheRuntime(t *testing.T) {
	want := []string{
		`node_cpu_usage_seconds_total 15077.3`,
		`node_memory_working_set_bytes 1.982038016e+09`,
		`resource_scrape_error 1`,
		`scrape_error 1`,
	}
	if diff := cmp.Diff(want, samples(t, collect(t, &fake{failed: true}), "resource")); diff != "" {
		t.Error(diff)
	}
}

func TestCadvisorMetrics(t *testing.T) {
	const labels = `{container="app",id="id-app",namespace="shop",pod="web"}`
	const network = `{interface="eth0",namespace="shop",pod="web"}`
	want := []string{
		"container_cpu_usage_seconds_total" + labels + " 2",
		"container_memory_working_set_bytes" + labels + " 4096",
		"container_memory_usage_bytes" + labels + " 5000",
		"container_memory_rss" + labels + " 3000",
		"container_fs_usage_bytes" + labels + " 7",
		"container_network_receive_bytes_total" + network + " 10",
		"container_network_transmit_bytes_total" + network + " 20",
	}
	if diff := cmp.Diff(want, samples(t, collect(t, newFake()), "cadvisor")); diff != "" {
		t.Error(diff)
	}
}

func TestOwnMetricsCountPodsAndContainers(t *testing.T) {
	got := strings.Join(samples(t, collect(t, newFake()), ""), "\n")
	for _, want := range []string{
		`kubelet_node_name{node="n"} 1`,
		`kubelet_running_pods 2`,
		`kubelet_running_containers{container_state="created"} 0`,
		`kubelet_running_containers{container_state="exited"} 1`,
		`kubelet_running_containers{container_state="running"} 2`,
		`kubelet_desired_pods 1`,
		`process_cpu_seconds_total 3`,
		`process_open_fds 2`,
	} {
		if !strings.Contains(got, want+"\n") && !strings.HasSuffix(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

func TestOwnMetricsDoNotNeedTheRuntime(t *testing.T) {
	got := strings.Join(samples(t, collect(t, &fake{failed: true}), ""), "\n")
	if !strings.Contains(got, "kubelet_desired_pods 1\n") || strings.Contains(got, "kubelet_running") {
		t.Error(got)
	}
}

func TestSetsThatThereAreNot(t *testing.T) {
	c := collect(t, newFake())
	if text, err := c.Metrics(t.Context(), "probes"); err != nil || len(text) > 0 {
		t.Errorf("probes: %q, %v", text, err)
	}
	if _, err := c.Metrics(t.Context(), "other"); err == nil {
		t.Error("other: no error")
	}
	if _, err := collect(t, &fake{failed: true}).Metrics(t.Context(), "cadvisor"); err == nil {
		t.Error("cadvisor of a runtime that does not answer: no error")
	}
}

func TestPageIsInPrometheusFormat(t *testing.T) {
	p := &page{}
	p.head("metric", "gauge", "What it is.")
	p.value("metric", 1.5)
	p.value("metric", 2, "a", "x", "b", "with \"quotes\", \\ and\nlines")
	const want = "# HELP metric What it is.\n# TYPE metric gauge\nmetric 1.5\n" +
		`metric{a="x",b="with \"quotes\", \\ and\nlines"} 2` + "\n"
	if diff := cmp.Diff(want, p.String()); diff != "" {
		t.Error(diff)
	}
}

package cadvisor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/exposition"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/usage"
)

// page is the text of a snapshot.
func page(t testing.TB, s *usage.Snapshot, n *Node) string {
	t.Helper()
	var out strings.Builder
	w := exposition.NewWriter(&out)
	Write(w, s, n)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// parsed is the page as Prometheus reads it, by name.
func parsed(t testing.TB, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func TestPageOfANode(t *testing.T) {
	testenv.Golden(t, "page.txt", page(t, snapshot(), node()))
}

func TestPageHasTheNamesOfTheList(t *testing.T) {
	families := parsed(t, page(t, snapshot(), node()))
	for _, m := range testenv.KubeletMetrics(t, "/metrics/cadvisor") {
		if served := families[m.Name] != nil; served != (m.State == "served") {
			t.Errorf("%s: served %v, docs/data/kubelet-metrics.json says %q", m.Name, served, m.State)
		}
		delete(families, m.Name)
	}
	for name := range families {
		t.Errorf("%s is not in docs/data/kubelet-metrics.json", name)
	}
}

func TestRulesAndDashboardsFindTheirNamesAndLabels(t *testing.T) {
	families := parsed(t, page(t, snapshot(), node()))
	for _, m := range testenv.MixinMetrics(t, "/metrics/cadvisor") {
		if families[m.Name] == nil {
			t.Errorf("%s is missing", m.Name)
			continue
		}

		labels := map[string]bool{}
		for _, l := range families[m.Name].GetMetric()[0].GetLabel() {
			labels[l.GetName()] = true
		}

		for _, l := range m.Labels {
			if !labels[l] {
				t.Errorf("%s has no label %s", m.Name, l)
			}
		}
	}
}

// Prometheus drops a scrape in which a series is there twice.
func TestNoSeriesIsTwice(t *testing.T) {
	seen := map[string]bool{}
	for line := range strings.Lines(page(t, snapshot(), node())) {
		series := line
		if end := strings.LastIndexByte(line, '}'); end > 0 {
			series = line[:end]
		}
		if seen[series] && !strings.HasPrefix(line, "#") {
			t.Errorf("twice: %s", line)
		}
		seen[series] = true
	}
}

// with are the label values of the series of a family for which all pairs hold.
func with(f *dto.MetricFamily, label string, pairs ...string) []string {
	var out []string
	for _, m := range f.GetMetric() {
		labels := map[string]string{}
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}

		fits := true
		for i := 0; i < len(pairs); i += 2 {
			fits = fits && labels[pairs[i]] == pairs[i+1]
		}

		if fits {
			out = append(out, labels[label])
		}
	}

	return out
}

// Dashboards sum with image!="": the containers of a pod, and its traffic, once each.
func TestContainersAndTrafficHaveAnImageAndPodsHaveNone(t *testing.T) {
	families := parsed(t, page(t, snapshot(), node()))
	memory := families["container_memory_working_set_bytes"]
	if got := with(memory, "id", "image", "img", "container", "app", "namespace", "n"); len(got) != 2 {
		t.Errorf("containers %q", got)
	}
	if got := with(memory, "id", "image", "", "pod", "one"); !cmp.Equal(got, []string{"/kubepods/pod1"}) {
		t.Errorf("pod without image: %q", got)
	}

	got := with(memory, "image", "id", "/kubepods/pod1/box1", "container", "", "name", "box1")
	if len(got) != 1 {
		t.Errorf("sandbox: %q", got)
	}

	// The sandbox without a group has the pod's traffic, and nothing else.
	traffic := families["container_network_receive_bytes_total"]
	for _, pod := range []string{"one", "two"} {
		got := with(traffic, "interface", "pod", pod, "image", sandboxImage)
		if !cmp.Equal(got, []string{"eth0"}) {
			t.Errorf("%s: interfaces %q", pod, got)
		}
	}

	if got := with(memory, "id", "name", "box2"); len(got) != 0 {
		t.Errorf("memory of a sandbox without a group: %q", got)
	}
}

func TestThrottlingIsOfContainersWithALimit(t *testing.T) {
	families := parsed(t, page(t, snapshot(), node()))
	for _, name := range []string{"container_cpu_cfs_throttled_periods_total", "container_spec_cpu_quota"} {
		if got := with(families[name], "name", "container", "app"); !cmp.Equal(got, []string{"app1"}) {
			t.Errorf("%s: %q", name, got)
		}
	}

	if got := with(families["container_sockets"], "name", "container", "app"); !cmp.Equal(
		got,
		[]string{"app1"},
	) {
		t.Errorf("sockets: %q", got)
	}
}

func TestSamplesHaveTheTimeOfTheReading(t *testing.T) {
	for name, f := range parsed(t, page(t, snapshot(), node())) {
		timeless := strings.HasPrefix(name, "container_spec_") || strings.HasPrefix(name, "machine_") ||
			strings.HasSuffix(name, "_scrape_error") ||
			name == "container_start_time_seconds" || name == "container_creation_time_seconds" ||
			name == "cadvisor_version_info"
		for _, m := range f.GetMetric() {
			if got := m.GetTimestampMs(); timeless != (got == 0) || got != 0 && got != at.UnixMilli() {
				t.Errorf("%s: time %d", name, got)
			}
		}
	}
}

func TestPageWithoutTheRuntimeSaysSo(t *testing.T) {
	s := &usage.Snapshot{Err: os.ErrNotExist, Time: at}
	families := parsed(t, page(t, s, &Node{Failed: true}))
	for _, name := range []string{"container_scrape_error", "machine_scrape_error"} {
		if got := families[name].GetMetric()[0].GetGauge().GetValue(); got != 1 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// full is a node with 110 pods of one container each, with IDs as long as real ones.
func full() *usage.Snapshot {
	id := func(i int, what string) string {
		sum := sha256.Sum256([]byte(what + strconv.Itoa(i)))
		return hex.EncodeToString(sum[:])
	}

	s := snapshot()
	s.Pods = nil
	for i := range 110 {
		uid := id(i, "pod")[:36]
		path := "/kubepods/burstable/pod" + uid
		app := id(i, "app")
		s.Pods = append(s.Pods, usage.Pod{
			Pod:        runtime.Pod{UID: uid, Namespace: "default", Name: "web-5d8f-" + uid[:5]},
			SandboxID:  id(i, "box"),
			Created:    born,
			Group:      group(path),
			Interfaces: eth0,
			Containers: []usage.Container{{
				ID:      app,
				Name:    "app",
				Image:   "registry.example/app:1.2.3",
				Created: born,
				Group:   group(path + "/" + app),
			}},
		})
	}

	return s
}

// BenchmarkPage writes the page of a full node.
func BenchmarkPage(b *testing.B) {
	s, n := full(), node()
	w := exposition.NewWriter(io.Discard)
	b.ReportAllocs()
	for b.Loop() {
		Write(w, s, n)
	}
	b.ReportMetric(float64(len(page(b, s, n))), "bytes/page")
}

// BenchmarkScrape is what a scrape of that page costs beside the reading of groups.
func BenchmarkScrape(b *testing.B) {
	s, n := full(), node()
	p := exposition.NewPage(func(_ context.Context, w *exposition.Writer) (time.Time, error) {
		Write(w, s, n)
		return time.Time{}, nil
	})

	r := httptest.NewRequest(http.MethodGet, "/metrics/cadvisor", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	size := 0
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		size = w.Body.Len()
	}

	b.ReportMetric(float64(size), "bytes/answer")
}

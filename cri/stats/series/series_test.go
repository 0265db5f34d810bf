package series

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/stats/meter"
	"github.com/trivet-node/trivet/internal/cgroup/usage/usagetest"
	"github.com/trivet-node/trivet/internal/diskusage"
)

var update = flag.Bool("update", false, "rewrite the files of expected metrics")

// machine returns Series of a machine with this version of cgroups.
func machine(t *testing.T, v2 bool) *Series {
	t.Helper()
	return New(Config{
		Meter:     meter.New(usagetest.New(t, v2)),
		V2:        v2,
		HugePages: true,
		Dir:       t.TempDir(),
		Written: func(string, int64) diskusage.Figure {
			return diskusage.Figure{Usage: diskusage.Usage{Bytes: 7, Inodes: 2}, Time: time.Unix(1, 0)}
		},
	})
}

// web is a pod of one container, whose first process is that of the test.
func web() Pod {
	resources := &runtimeapi.LinuxContainerResources{
		CpuQuota:               20_000,
		CpuShares:              204,
		MemoryLimitInBytes:     64 << 20,
		MemorySwapLimitInBytes: 96 << 20,
	}

	main := Container{
		ID:        "container1",
		Name:      "main",
		Image:     "registry.example/web:1",
		Group:     "/kubepods/pod1/container1",
		Created:   time.Unix(1_600_000_000, 0),
		Started:   time.Unix(1_700_000_000, 0),
		Pid:       os.Getpid(),
		Resources: resources,
	}

	return Pod{
		ID:         "sandbox1",
		Namespace:  "shop",
		Name:       "web",
		Group:      "/kubepods/pod1",
		Quota:      20_000,
		Containers: []Container{main},
	}
}

// described returns the descriptors by name.
func described(s *Series) map[string]*runtimeapi.MetricDescriptor {
	all := map[string]*runtimeapi.MetricDescriptor{}
	for _, d := range s.Descriptors() {
		all[d.Name] = d
	}
	return all
}

// text returns metrics as Prometheus shows them, without what differs from run to run.
func text(s *Series, metrics []*runtimeapi.Metric) string {
	known := described(s)
	changing := []string{
		"container_last_seen", "container_fs_", "container_file_descriptors", "container_sockets",
		"container_ulimits",
	}

	var out strings.Builder
	for _, m := range metrics {
		out.WriteString(m.Name + "{")
		for i, key := range known[m.Name].GetLabelKeys() {
			value := m.LabelValues[i]
			if key == "device" {
				value = "DEVICE"
			}

			fmt.Fprintf(&out, "%s=%q,", key, value)
		}

		value := fmt.Sprint(m.Value.GetValue())
		for _, prefix := range changing {
			if strings.HasPrefix(m.Name, prefix) && m.Name != fsUsage.name {
				value = "N"
			}
		}

		out.WriteString("} " + value + "\n")
	}

	return out.String()
}

// golden compares a text with a file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: %s", file, diff)
	}
}

func TestMetricsOfAPodAndItsContainer(t *testing.T) {
	for name, v2 := range map[string]bool{"v1": false, "v2": true} {
		s := machine(t, v2)
		pod := s.Pod(web())
		golden(t, "testdata/pod-"+name+".txt", text(s, pod.Metrics))
		golden(t, "testdata/container-"+name+".txt", text(s, pod.ContainerMetrics[0].Metrics))
	}
}

// What kubelet's cAdvisor serves is in testdata/cadvisor.txt, with where that is known from.
func TestNamesTypesAndLabelsAreThoseOfCAdvisor(t *testing.T) {
	data, err := os.ReadFile("testdata/cadvisor.txt")
	if err != nil {
		t.Fatal(err)
	}

	rest := map[string]*family{}
	for _, f := range families {
		rest[f.name] = f
	}

	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[0] == "#" {
			continue
		}

		name, kind, served := fields[0], fields[1], fields[2]
		f := rest[name]
		delete(rest, name)
		if (f != nil) != (served == "served") {
			t.Errorf("%s: the file says %s", name, served)
			continue
		}

		if f == nil {
			continue
		}
		got, labels := strings.ToLower(f.kind.String()), fields[3:]
		if got != kind || !slices.Equal(f.labels, labels) {
			t.Errorf("%s is a %s with labels %v; the file says %s, %v", name, got, f.labels, kind, labels)
		}
	}

	for name := range rest {
		t.Errorf("%s is not in the file", name)
	}
}

func TestOnlyWhatThisMachineCountsIsDescribed(t *testing.T) {
	for _, c := range []struct {
		v2, pages, pressure, huge bool
	}{
		{false, false, false, false},
		{false, true, false, true},
		{true, true, true, true},
	} {
		all := described(New(Config{V2: c.v2, HugePages: c.pages}))
		_, pressure := all["container_pressure_cpu_waiting_seconds_total"]
		_, huge := all["container_hugetlb_usage_bytes"]
		if pressure != c.pressure || huge != c.huge {
			t.Errorf("%+v: pressure %v, huge pages %v", c, pressure, huge)
		}
	}
}

// kubelet ignores a metric that is not described, and one whose labels are too few or too many. Two of the
// same name and labels are an error of the whole answer for Prometheus.
func TestEachMetricFitsItsDescriptionAndIsThereOnce(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		s := machine(t, v2)
		known := described(s)
		pod := s.Pod(web())
		seen := map[string]bool{}
		for _, m := range append(pod.Metrics, pod.ContainerMetrics[0].Metrics...) {
			d := known[m.Name]
			if d == nil || len(d.LabelKeys) != len(m.LabelValues) || d.Help == "" || m.Timestamp == 0 {
				t.Errorf("v2 %v: %v is described as %v", v2, m, d)
			}

			key := m.Name + strings.Join(m.LabelValues, "|")
			if seen[key] {
				t.Errorf("v2 %v: %s is there twice", v2, key)
			}
			seen[key] = true
		}
	}
}

func TestContainerThatIsEndingHidesNoOther(t *testing.T) {
	host := usagetest.New(t, true)
	host.Gone["/kubepods/pod1/ending"] = true
	s := New(Config{Meter: meter.New(host), V2: true, Written: func(string, int64) diskusage.Figure {
		return diskusage.Figure{}
	}})

	pod := web()
	pod.Containers = append([]Container{{ID: "ending", Group: "/kubepods/pod1/ending"}}, pod.Containers...)
	got := s.Pod(pod)
	if len(got.ContainerMetrics[0].Metrics) != 0 || len(got.ContainerMetrics[1].Metrics) == 0 {
		t.Errorf("metrics %v", got.ContainerMetrics)
	}
}

func TestDevicesHaveNames(t *testing.T) {
	d := devices{dir: "/"}
	if got := d.name(1<<12-1, 1<<20-1); got != "4095:1048575" {
		t.Errorf("a device that does not exist: %s", got)
	}

	for range 2 * maxNames {
		d.name(4095, uint32(len(d.names)))
	}

	if len(d.names) > maxNames {
		t.Errorf("%d names are kept", len(d.names))
	}
	if fs, err := d.fileSystem(); err != nil || fs.bytes == 0 || fs.device == "" {
		t.Errorf("file system %+v, %v", fs, err)
	}
}

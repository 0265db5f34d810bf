package stats

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/csivolume"
)

// gathered are the samples of the collector by name and labels.
func gathered(t *testing.T, c *Collector) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}

	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}

			out[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetGauge().GetValue()
		}
	}

	return out
}

func TestLogsOfContainersAreMeasured(t *testing.T) {
	got := gathered(t, collect(t, &fake{}))
	const logs = "kubelet_container_log_filesystem_used_bytes{container=app,namespace=shop,pod=web,uid=u}"
	if got[logs] != 20 {
		t.Errorf("%v", got)
	}
	if got := gathered(t, collect(t, &fake{failed: true})); len(got) != 0 {
		t.Errorf("without an answer: %v", got)
	}
}

// A claim that two pods have is shown once: Prometheus refuses a series that is there twice.
func TestVolumesOfClaimsAreMeasuredOnce(t *testing.T) {
	c := collect(t, &fake{})
	claim := &v1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}
	var pods []*v1.Pod
	for _, uid := range []string{"a", "b"} {
		pod := &v1.Pod{}
		pod.UID = "uid-" + "x"
		pod.Name = uid
		pod.Namespace = "shop"
		pod.Spec.Volumes = []v1.Volume{
			{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: claim}},
			{Name: "cache"},
		}

		pods = append(pods, pod)
	}

	c.cfg.Pods = func() []*v1.Pod { return pods }
	dir := filepath.Join(c.cfg.Root, "pods/uid-x/volumes/kubernetes.io~csi/pv/mount")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}

	asked := map[string]int{}
	c.measure = func(dir string) *statsapi.FsStats {
		asked[filepath.Base(filepath.Dir(dir))]++
		return &statsapi.FsStats{CapacityBytes: new(uint64(100)), UsedBytes: new(uint64(30))}
	}

	got := gathered(t, c)
	for name, want := range map[string]float64{"capacity_bytes": 100, "used_bytes": 30} {
		series := "kubelet_volume_stats_" + name + "{namespace=shop,persistentvolumeclaim=data}"
		if got[series] != want {
			t.Errorf("%s: %v, want %v", series, got[series], want)
		}
	}

	if len(asked) != 1 || asked["pv"] == 0 {
		t.Errorf("asked for %v: only volumes of claims", asked)
	}
}

func TestWhatADriverSaysOfAVolumeIsShown(t *testing.T) {
	f := &fake{said: []csivolume.VolumeStats{{
		Pod:     "u",
		Volume:  "v",
		FsStats: statsapi.FsStats{UsedBytes: new(uint64(12))},
	}}}

	c := collect(t, f)
	claim := &v1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}
	pod := c.cfg.Pods()[0]
	pod.Spec.Volumes = []v1.Volume{
		{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: claim}},
	}
	c.measure = func(dir string) *statsapi.FsStats {
		t.Errorf("the mount %s is asked too", dir)
		return nil
	}

	const series = "kubelet_volume_stats_used_bytes{namespace=shop,persistentvolumeclaim=data}"
	if got := gathered(t, c); got[series] != 12 {
		t.Errorf("%v", got)
	}
}

func TestVolumesHaveTheNamesAndLabelsThatRulesUse(t *testing.T) {
	labels := map[string][]string{}
	for _, m := range testenv.MixinMetrics(t, "/metrics") {
		labels[m.Name] = m.Labels
	}

	for _, m := range volumeMetrics {
		name := fqName.FindStringSubmatch(m.desc.String())[1]
		if !slices.Equal(labels[name], claimLabels) {
			t.Errorf("%s has the labels %q, rules use %q", name, claimLabels, labels[name])
		}
	}
}

// fqName is the name in the text of a description.
var fqName = regexp.MustCompile(`fqName: "([^"]+)"`)

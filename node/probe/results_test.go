package probe

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/testenv"
)

// samples are the metrics of a collector by name and labels: counters, and the number of measured times.
func samples(t *testing.T, c prometheus.Collector) map[string]float64 {
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

			name := f.GetName() + "{" + strings.Join(labels, ",") + "}"
			out[name] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}

	return out
}

func TestResultsAreCountedByTypeAndResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", Namespace: "n", Name: "p"}}
		results := NewResults(func() []*v1.Pod { return []*v1.Pod{pod} })
		e := &execs{bad: map[string]error{}}
		m := New(e, make(looks, 10), &events{}, results)
		defer m.Close()

		spec := &v1.Container{
			Name: "c",
			ReadinessProbe: &v1.Probe{
				PeriodSeconds: 1,
				ProbeHandler:  v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"ready"}}},
			},
		}

		m.Sync(pod, "", []Instance{{ID: "1", Spec: spec, Started: time.Now()}})
		time.Sleep(1500 * time.Millisecond)
		e.set("ready", true, nil)
		time.Sleep(time.Second)
		e.set("ready", true, errors.New("runtime is away"))
		time.Sleep(time.Second)
		synctest.Wait()

		const labels = "container=c,namespace=n,pod=p,pod_uid=u,probe_type=Readiness,result="
		got := samples(t, results)
		for name, want := range map[string]float64{
			"prober_probe_total{" + labels + "successful}":                                      2,
			"prober_probe_total{" + labels + "failed}":                                          1,
			"prober_probe_total{" + labels + "unknown}":                                         1,
			"prober_probe_duration_seconds{container=c,namespace=n,pod=p,probe_type=Readiness}": 3,
		} {
			if got[name] != want {
				t.Errorf("%s: %v, want %v", name, got[name], want)
			}
		}
	})
}

// A node that nobody scrapes must not keep the figures of every pod that it ever had.
func TestResultsOfPodsThatAreGoneAreForgotten(t *testing.T) {
	old := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "old", Namespace: "n", Name: "db-0"}}
	other := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "x", Namespace: "n", Name: "x"}}
	again := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "new", Namespace: "n", Name: "db-0"}}
	present := []*v1.Pod{old, other}
	r := NewResults(func() []*v1.Pod { return present })
	r.add(old, "c", liveness, successful, time.Millisecond)
	r.add(other, "c", liveness, successful, time.Millisecond)

	present = []*v1.Pod{again}
	r.add(again, "c", liveness, successful, time.Millisecond)
	if len(r.known) != 1 {
		t.Errorf("%d pods are known", len(r.known))
	}

	got := samples(t, r)
	const times = "prober_probe_duration_seconds{container=c,namespace=n,pod=db-0,probe_type=Liveness}"
	if n := got[times]; n != 2 {
		t.Errorf("times of pods of one name: %v, want 2", n)
	}

	for name := range got {
		if strings.Contains(name, "pod_uid=old") || strings.Contains(name, "pod=x") {
			t.Errorf("%s is still there", name)
		}
	}
}

func TestResultsHaveTheNamesOfTheList(t *testing.T) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", Namespace: "n", Name: "p"}}
	r := NewResults(func() []*v1.Pod { return []*v1.Pod{pod} })
	r.add(pod, "c", startup, successful, time.Millisecond)
	names := map[string]bool{}
	for sample := range samples(t, r) {
		name, _, _ := strings.Cut(sample, "{")
		names[name] = true
	}

	list := testenv.KubeletMetrics(t, "/metrics/probes")
	for _, m := range list {
		if !names[m.Name] {
			t.Errorf("%s is missing", m.Name)
		}
	}
	if len(names) != len(list) {
		t.Errorf("%v: docs/data/kubelet-metrics.json has %d", names, len(list))
	}
}

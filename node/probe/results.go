package probe

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Results of probes, as kubelet names them in its metrics.
const (
	successful = "successful"
	failed     = "failed"
	unknown    = "unknown"
)

// Results counts the results of probes and measures how long they took, by kubelet's names and labels. It is
// a collector. Figures go on when a container is restarted, and go when the pod is gone.
type Results struct {
	pods  func() []*v1.Pod
	total *prometheus.CounterVec
	took  *prometheus.HistogramVec
	// start is since when they count.
	start prometheus.Gauge

	// mu guards known, the pods that have figures.
	mu    sync.Mutex
	known map[types.UID]types.NamespacedName
}

// NewResults returns a collector that has nothing yet. pods returns the pods of the node.
func NewResults(pods func() []*v1.Pod) *Results {
	start := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "process_start_time_seconds",
		Help: "Start time of the process since unix epoch in seconds.",
	})
	start.SetToCurrentTime()

	return &Results{
		pods: pods,
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "prober_probe_total",
			Help: "Cumulative number of a liveness, readiness or startup probe for a container by result.",
		}, []string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "prober_probe_duration_seconds",
			Help: "Duration in seconds for a probe response.",
		}, []string{"probe_type", "container", "pod", "namespace"}),
		start: start,
		known: map[types.UID]types.NamespacedName{},
	}
}

// Describe implements prometheus.Collector.
func (r *Results) Describe(out chan<- *prometheus.Desc) {
	r.total.Describe(out)
	r.took.Describe(out)
	r.start.Describe(out)
}

// Collect implements prometheus.Collector.
func (r *Results) Collect(out chan<- prometheus.Metric) {
	r.forget()
	r.total.Collect(out)
	r.took.Collect(out)
	r.start.Collect(out)
}

// add counts one probe. As with kubelet, the time of one that failed is not measured.
func (r *Results) add(pod *v1.Pod, container string, k kind, result string, took time.Duration) {
	r.meet(pod)
	r.total.WithLabelValues(
		string(k), result, container, pod.Name, pod.Namespace, string(pod.UID),
	).Inc()
	if result != failed {
		r.took.WithLabelValues(string(k), container, pod.Name, pod.Namespace).Observe(took.Seconds())
	}
}

// meet remembers a pod. A new one is the occasion to forget others, so that figures are bounded by the pods
// of the node also if nobody collects them.
func (r *Results) meet(pod *v1.Pod) {
	r.mu.Lock()
	_, met := r.known[pod.UID]
	r.known[pod.UID] = types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	r.mu.Unlock()
	if !met {
		r.forget()
	}
}

// forget deletes the figures of pods that are gone. Times are by name: they stay for a pod that came after
// one of the same name.
func (r *Results) forget() {
	present := map[types.UID]bool{}
	names := map[types.NamespacedName]bool{}
	for _, p := range r.pods() {
		present[p.UID] = true
		names[types.NamespacedName{Namespace: p.Namespace, Name: p.Name}] = true
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	for uid, name := range r.known {
		if present[uid] {
			continue
		}

		delete(r.known, uid)
		r.total.DeletePartialMatch(prometheus.Labels{"pod_uid": string(uid)})
		if !names[name] {
			r.took.DeletePartialMatch(prometheus.Labels{"pod": name.Name, "namespace": name.Namespace})
		}
	}
}

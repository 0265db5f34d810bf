package kubeletmetric

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/podspec"
)

// Buckets of resizes, kubelet's: in milliseconds that it takes, and in seconds that it waits.
var (
	resizeBuckets = []float64{
		10, 50, 100, 500, 1000, 2000, 5000, 10000, 20000, 30000, 60000, 120000, 300000, 600000,
	}
	deferredBuckets = []float64{5, 10, 15, 20, 30, 45, 60, 90, 120, 150, 180, 300, 600, 1200, 1800, 3600}
)

// Resizes counts what is done about resizes of pods.
type Resizes struct {
	group
	asked      *prometheus.CounterVec
	took       *prometheus.HistogramVec
	pending    *prometheus.GaugeVec
	infeasible *prometheus.CounterVec
	going      prometheus.Gauge
	accepted   *prometheus.CounterVec
	waited     *prometheus.HistogramVec

	// mu guards waiting: the labels of the pods that wait, and goingOn: those whose resize goes on.
	mu      sync.Mutex
	waiting map[types.UID][2]string
	goingOn map[types.UID]bool
}

func newResizes() *Resizes {
	r := &Resizes{
		asked: counter("container_requested_resizes_total",
			"Number of resources of containers that were to be changed, by requirement and operation.",
			"resource", "requirement", "operation"),
		took: histogram("pod_resize_duration_milliseconds",
			"Duration of putting the resize of a pod in force, in milliseconds, by success.",
			resizeBuckets, "success"),
		pending: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Subsystem: subsystem,
			Name:      "pod_pending_resizes",
			Help:      "Number of pods that wait for a resize, by reason and priority.",
		}, []string{"reason", "priority_bucket"}),
		infeasible: counter("pod_infeasible_resizes_total",
			"Number of resizes that the node cannot do, by reason.", "reason_detail"),
		going: prometheus.NewGauge(prometheus.GaugeOpts{
			Subsystem: subsystem,
			Name:      "pod_in_progress_resizes",
			Help:      "Number of pods whose resize goes on.",
		}),
		accepted: counter("pod_deferred_accepted_resizes_total",
			"Number of deferred resizes that were accepted, by what has led to it.", "retry_trigger"),
		waited: histogram("pod_deferred_resize_duration_seconds",
			"Time that resizes were deferred in seconds, by how that ended and priority.",
			deferredBuckets, "resolution", "priority_bucket"),
		waiting: map[types.UID][2]string{},
		goingOn: map[types.UID]bool{},
	}

	r.group = group{r.asked, r.took, r.pending, r.infeasible, r.going, r.accepted, r.waited}
	return r
}

// Asked counts what a version of a pod asks for beside the one before.
func (r *Resizes) Asked(before, now *v1.Pod) {
	for c := range podspec.Regular(now) {
		old := podspec.Find(before, c.Name)
		if old == nil {
			continue
		}

		for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			r.count(name, "requests", old.Resources.Requests[name], c.Resources.Requests[name])
			r.count(name, "limits", old.Resources.Limits[name], c.Resources.Limits[name])
		}
	}
}

// count counts the change of one amount.
func (r *Resizes) count(name v1.ResourceName, requirement string, was, is resource.Quantity) {
	operation := ""
	switch {
	case is.IsZero() && !was.IsZero():
		operation = "remove"
	case was.IsZero() && !is.IsZero():
		operation = "add"
	case is.Cmp(was) < 0:
		operation = "decrease"
	case is.Cmp(was) > 0:
		operation = "increase"
	}

	if operation != "" {
		r.asked.WithLabelValues(string(name), requirement, operation).Inc()
	}
}

// Infeasible counts a resize that the node cannot do.
func (r *Resizes) Infeasible(reason string) { r.infeasible.WithLabelValues(reason).Inc() }

// Waits says for which reason a pod waits for a resize, empty if it does so no longer.
func (r *Resizes) Waits(pod *v1.Pod, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()

	if old, waits := r.waiting[pod.UID]; waits {
		r.pending.WithLabelValues(old[:]...).Dec()
		delete(r.waiting, pod.UID)
	}

	if reason != "" {
		labels := [2]string{strings.ToLower(reason), bucket(pod)}
		r.pending.WithLabelValues(labels[:]...).Inc()
		r.waiting[pod.UID] = labels
	}
}

// Decided counts a resize that is deferred no longer.
func (r *Resizes) Decided(pod *v1.Pod, waited time.Duration, resolution, trigger string) {
	r.waited.WithLabelValues(resolution, bucket(pod)).Observe(waited.Seconds())
	if trigger != "" {
		r.accepted.WithLabelValues(trigger).Inc()
	}
}

// GoesOn says whether the resize of a pod goes on.
func (r *Resizes) GoesOn(uid types.UID, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()

	delete(r.goingOn, uid)
	if on {
		r.goingOn[uid] = true
	}
	r.going.Set(float64(len(r.goingOn)))
}

// Took counts an attempt to put a resize in force.
func (r *Resizes) Took(took time.Duration, err error) {
	r.took.WithLabelValues(strconv.FormatBool(err == nil)).Observe(float64(took.Milliseconds()))
}

// bucket is kubelet's class of a pod's priority.
func bucket(pod *v1.Pod) string {
	var p int32
	if pod.Spec.Priority != nil {
		p = *pod.Spec.Priority
	}

	switch {
	case p >= 2_000_000_000:
		return "system-critical"
	case p >= 100_000:
		return "high"
	case p > 0:
		return "medium"
	case p == 0:
		return "normal"
	case p > -1000:
		return "low"
	}

	return "very-low"
}

package kubeletmetric

import (
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/trivet-node/trivet/internal/metric"
)

// Runtime counts the calls of the container runtime, and the lists of all that it has. Kubelet's name for
// those lists is PLEG, the pod lifecycle event generator.
type Runtime struct {
	group
	calls  *prometheus.CounterVec
	errors *prometheus.CounterVec
	took   *prometheus.HistogramVec

	relist   *prometheus.HistogramVec
	interval *prometheus.HistogramVec
	lastSeen prometheus.Gauge
	last     atomic.Int64
}

func newRuntime() *Runtime {
	r := &Runtime{
		calls: counter("runtime_operations_total",
			"Number of calls of the container runtime, by operation.", "operation_type"),
		errors: counter("runtime_operations_errors_total",
			"Number of calls of the container runtime that failed, by operation.", "operation_type"),
		took: histogram("runtime_operations_duration_seconds",
			"Duration of calls of the container runtime in seconds, by operation.",
			prometheus.ExponentialBuckets(.005, 2.5, 14), "operation_type"),
		relist: histogram("pleg_relist_duration_seconds",
			"Duration of lists of all pods of the container runtime in seconds.", prometheus.DefBuckets),
		interval: histogram("pleg_relist_interval_seconds",
			"Time between lists of all pods of the container runtime in seconds.", prometheus.DefBuckets),
		lastSeen: prometheus.NewGauge(prometheus.GaugeOpts{
			Subsystem: subsystem,
			Name:      "pleg_last_seen_seconds",
			Help:      "Unix time of the last list of all pods of the container runtime.",
		}),
	}
	r.group = group{r.calls, r.errors, r.took, r.relist, r.interval, r.lastSeen}
	return r
}

// Observe counts a call of CRI; it is an rpc.Observer.
func (r *Runtime) Observe(method string, code codes.Code, took time.Duration) {
	operation := operationOf(metric.Method(method))
	r.calls.WithLabelValues(operation).Inc()
	if code != codes.OK {
		r.errors.WithLabelValues(operation).Inc()
	}
	r.took.WithLabelValues(operation).Observe(took.Seconds())
}

// Relisted counts a list of all that the runtime has.
func (r *Runtime) Relisted(began time.Time, took time.Duration) {
	r.relist.WithLabelValues().Observe(took.Seconds())
	if last := r.last.Swap(began.UnixNano()); last != 0 {
		r.interval.WithLabelValues().Observe(began.Sub(time.Unix(0, last)).Seconds())
	}
	r.lastSeen.Set(float64(began.Unix()))
}

// irregular are kubelet's names of operations that are not made of the words of the method.
var irregular = map[string]string{
	"UpdateContainerResources":  "update_container",
	"UpdatePodSandboxResources": "update_podsandbox_resources",
}

// operationOf returns kubelet's name of an operation: create_container for CreateContainer. A sandbox is one
// word, podsandbox.
func operationOf(method string) string {
	if name, ok := irregular[method]; ok {
		return name
	}

	method = strings.ReplaceAll(method, "PodSandbox", "Podsandbox")
	var out strings.Builder
	for i, r := range method {
		if unicode.IsUpper(r) && i > 0 {
			out.WriteByte('_')
		}
		out.WriteRune(unicode.ToLower(r))
	}
	return out.String()
}

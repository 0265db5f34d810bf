package kubeletmetric

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/podtiming"
)

// startBuckets are kubelet's for the starts of pods, in seconds.
var startBuckets = []float64{
	.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900,
	1200, 1800, 2700, 3600,
}

// Pods counts what is done for pods.
type Pods struct {
	group
	worked *prometheus.HistogramVec
	began  *prometheus.HistogramVec

	// The start of pods.
	sinceSeen    *prometheus.HistogramVec
	sinceCreated *prometheus.HistogramVec
	sli          *prometheus.HistogramVec
	firstNetwork prometheus.Gauge
	first        sync.Once

	// Sandboxes and containers.
	sandboxes      *prometheus.CounterVec
	sandboxErrors  *prometheus.CounterVec
	userNamespaces *prometheus.CounterVec
	userErrors     *prometheus.CounterVec
	sandboxTook    *prometheus.HistogramVec
	handlerErrors  *prometheus.CounterVec
	perPod         *prometheus.HistogramVec
	containers     *prometheus.CounterVec
	failed         *prometheus.CounterVec
	terminated     *prometheus.CounterVec

	// What the API is told, and what the node refuses.
	statusTook *prometheus.HistogramVec
	rejected   *prometheus.CounterVec
	preempted  *prometheus.CounterVec
	evicted    *prometheus.CounterVec
	evictedBy  *prometheus.HistogramVec
	cgroups    *prometheus.HistogramVec
}

func newPods() *Pods {
	p := &Pods{
		worked: histogram("pod_worker_duration_seconds",
			"Duration of work on a pod in seconds, from a look to the end of the steps it began, by kind.",
			prometheus.DefBuckets, "operation_type"),
		began: histogram("pod_worker_start_duration_seconds",
			"Time from the agent's first sight of a pod to the first work on it, in seconds.",
			prometheus.DefBuckets),
		sinceSeen: histogram("pod_start_duration_seconds",
			"Time from the agent's first sight of a pod to the pod's phase Running, in seconds.",
			startBuckets),
		sinceCreated: histogram("pod_start_total_duration_seconds",
			"Time from a pod's creation until the API shows all its containers as started, in seconds.",
			startBuckets),
		sli: histogram("pod_start_sli_duration_seconds",
			"The same for pods without persistent volumes, without pulls of images and init containers.",
			startBuckets),
		firstNetwork: prometheus.NewGauge(prometheus.GaugeOpts{
			Subsystem: subsystem,
			Name:      "first_network_pod_start_sli_duration_seconds",
			Help:      "That of the first pod with a network of its own, in seconds.",
		}),
		statusTook: histogram("pod_status_sync_duration_seconds",
			"Time from a change of a pod's status until the API shows it, in seconds.",
			[]float64{.01, .05, .1, .5, 1, 5, 10, 20, 30, 45, 60}),
		rejected: counter("admission_rejections_total",
			"Number of pods that were rejected, by reason.", "reason"),
		preempted: counter("preemptions",
			"Number of pods that were preempted for a critical pod.",
			"preemption_signal"),
		evicted: counter("evictions", "Number of pods that were evicted, by signal.", "eviction_signal"),
		evictedBy: histogram("eviction_stats_age_seconds",
			"Age of the figures by which a pod is chosen to be evicted, in seconds, by signal.",
			prometheus.DefBuckets, "eviction_signal"),
		cgroups: histogram("cgroup_manager_duration_seconds",
			"Duration of work on the control groups of pods in seconds, by kind.",
			prometheus.DefBuckets, "operation_type"),
	}
	p.addStarts()

	p.group = group{
		p.worked, p.began, p.sinceSeen, p.sinceCreated, p.sli, p.firstNetwork,
		p.sandboxes, p.sandboxErrors, p.userNamespaces, p.userErrors, p.sandboxTook, p.handlerErrors,
		p.perPod, p.containers, p.failed, p.terminated,
		p.statusTook, p.rejected, p.preempted, p.evicted, p.evictedBy, p.cgroups,
	}
	return p
}

func (p *Pods) addStarts() {
	p.sandboxes = counter("started_pods_total", "Number of sandboxes that were to be started.")
	p.sandboxErrors = counter("started_pods_errors_total", "Number of sandboxes that could not be started.")
	p.userNamespaces = counter("started_user_namespaced_pods_total",
		"Number of sandboxes with a user namespace of their own that were to be started.")
	p.userErrors = counter("started_user_namespaced_pods_errors_total",
		"Number of pods with a user namespace of their own that could not be started.")
	p.sandboxTook = histogram("run_podsandbox_duration_seconds",
		"Duration of the starts of sandboxes in seconds, by runtime handler.",
		prometheus.ExponentialBuckets(.005, 2.5, 14), "runtime_handler")
	p.handlerErrors = counter("run_podsandbox_errors_total",
		"Number of sandboxes that could not be started, by runtime handler.", "runtime_handler")
	p.perPod = histogram("containers_per_pod_count", "Number of containers of a pod that is started.",
		prometheus.ExponentialBuckets(1, 2, 5))
	p.containers = counter("started_containers_total",
		"Number of containers that were to be started, by type.", "container_type")
	p.failed = counter("started_containers_errors_total",
		"Number of containers that could not be started, by type and reason.", "container_type", "code")
	p.terminated = counter("terminated_containers_total",
		"Number of containers that have ended, by type, exit code and reason.",
		"container_type", "exit_code", "reason")

	// Rates of what has not happened yet are zero, not missing.
	p.sandboxes.WithLabelValues()
	p.sandboxErrors.WithLabelValues()
	p.userNamespaces.WithLabelValues()
	p.userErrors.WithLabelValues()
}

// Worked counts a round of work on a pod.
func (p *Pods) Worked(round podtiming.Round) {
	p.worked.WithLabelValues(round.Kind).Observe(round.Took.Seconds())
	if round.Kind == podtiming.Create {
		p.began.WithLabelValues().Observe(round.Waited.Seconds())
	}
}

// SandboxStarted counts the start of a sandbox by a runtime handler, empty for the usual one.
func (p *Pods) SandboxStarted(pod *v1.Pod, handler string, took time.Duration, err error) {
	p.sandboxes.WithLabelValues().Inc()
	p.perPod.WithLabelValues().Observe(float64(len(pod.Spec.Containers)))
	p.sandboxTook.WithLabelValues(handler).Observe(took.Seconds())
	if err != nil {
		p.sandboxErrors.WithLabelValues().Inc()
		p.handlerErrors.WithLabelValues(handler).Inc()
	}

	if pod.Spec.HostUsers == nil || *pod.Spec.HostUsers {
		return
	}
	p.userNamespaces.WithLabelValues().Inc()
	if err != nil {
		p.userErrors.WithLabelValues().Inc()
	}
}

// FirstStartFailed counts a pod with a user namespace whose sandbox was started and its containers were not:
// kubelet counts what fails together with the sandbox.
func (p *Pods) FirstStartFailed(pod *v1.Pod) {
	if pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers {
		p.userErrors.WithLabelValues().Inc()
	}
}

// ContainerStarted counts the start of a container. The reason is that of a failure, else empty.
func (p *Pods) ContainerStarted(pod *v1.Pod, name, reason string) {
	kind := typeOf(pod, name)
	p.containers.WithLabelValues(kind).Inc()
	if reason != "" {
		p.failed.WithLabelValues(kind, reason).Inc()
	}
}

// The types of containers.
const (
	regular   = "container"
	initial   = "init_container"
	ephemeral = "ephemeral_container"
)

func typeOf(pod *v1.Pod, name string) string {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return initial
		}
	}
	for c := range podspec.Regular(pod) {
		if c.Name == name {
			return regular
		}
	}
	return ephemeral
}

// StatusShown counts a status of a pod that the API shows now, in the place of another one. It took so long
// from the change to the answer.
func (p *Pods) StatusShown(before, now *v1.PodStatus, took time.Duration, start podtiming.Start) {
	p.started(start)
	p.statusTook.WithLabelValues().Observe(took.Seconds())
	p.countEnds(initial, before.InitContainerStatuses, now.InitContainerStatuses)
	p.countEnds(regular, before.ContainerStatuses, now.ContainerStatuses)
	p.countEnds(ephemeral, before.EphemeralContainerStatuses, now.EphemeralContainerStatuses)
}

// countEnds counts the containers that have ended between two statuses.
func (p *Pods) countEnds(kind string, before, now []v1.ContainerStatus) {
	ended := map[string]bool{}
	for _, s := range before {
		ended[s.Name] = s.State.Terminated != nil
	}
	for _, s := range now {
		if t := s.State.Terminated; t != nil && !ended[s.Name] {
			p.terminated.WithLabelValues(kind, strconv.Itoa(int(t.ExitCode)), t.Reason).Inc()
		}
	}
}

// started observes the start of a pod.
func (p *Pods) started(s podtiming.Start) {
	if s.Runs {
		p.sinceSeen.WithLabelValues().Observe(s.SinceSeen.Seconds())
	}
	if !s.Complete {
		return
	}

	p.sinceCreated.WithLabelValues().Observe(s.SinceCreated.Seconds())
	if s.Stateful {
		return
	}

	p.sli.WithLabelValues().Observe(s.SLI.Seconds())
	if s.Network {
		p.first.Do(func() { p.firstNetwork.Set(s.SLI.Seconds()) })
	}
}

// Rejected counts a pod that the node did not admit.
func (p *Pods) Rejected(reason string) { p.rejected.WithLabelValues(reason).Inc() }

// Preempted counts a pod that ends for a critical one. The gate does not say which resource was short; the
// label is empty then, as it is with kubelet.
func (p *Pods) Preempted() { p.preempted.WithLabelValues("").Inc() }

// Evicted counts a pod that is evicted because of a signal: one of the node's, or a limit of local storage.
func (p *Pods) Evicted(signal string) { p.evicted.WithLabelValues(signal).Inc() }

// Chosen counts how old the figures of a signal were when a pod was chosen by them.
func (p *Pods) Chosen(signal string, age time.Duration) {
	p.evictedBy.WithLabelValues(signal).Observe(age.Seconds())
}

// Cgroup counts work on the control group of a pod: create, update or destroy.
func (p *Pods) Cgroup(operation string, took time.Duration) {
	p.cgroups.WithLabelValues(operation).Observe(took.Seconds())
}

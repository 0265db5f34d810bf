package kubeletmetric

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/runtime"
)

// Lister is the container runtime (runtime.Client).
type Lister interface {
	Sandboxes(ctx context.Context, which runtime.Selection) ([]runtime.Sandbox, error)
	Containers(ctx context.Context, which runtime.Selection) ([]runtime.Container, error)
}

// Source is the pods of the node (podsource.Source).
type Source interface {
	List() []*v1.Pod
	MirrorCount() int
}

// Mounts are the volumes of the node's pods (inventory.Inventory).
type Mounts interface {
	// Mounted returns how many are mounted by each plugin.
	Mounted() map[string]int
	PluginOf(pod types.UID, volume *v1.Volume) string
}

// listTimeout bounds the runtime's part in a scrape.
const listTimeout = 5 * time.Second

// counts counts what there is when there is a scrape: what the runtime does not answer is left out.
type counts struct {
	runtime Lister
	pods    Source
	mounts  Mounts

	sandboxes, containers    *prometheus.Desc
	desired, active, mirrors *prometheus.Desc
	ephemeral, volumes       *prometheus.Desc
}

// Count adds the numbers of pods, containers and volumes to what is served.
func (s *Set) Count(rt Lister, pods Source, mounts Mounts) {
	s.Registry.MustRegister(&counts{
		runtime:    rt,
		pods:       pods,
		mounts:     mounts,
		sandboxes:  desc("running_pods", "Number of pods whose sandbox runs."),
		containers: desc("running_containers", "Number of containers, by state.", "container_state"),
		desired: desc("desired_pods",
			"Number of pods that the node is to run; static: those of files.", "static"),
		active:  desc("active_pods", "Number of those that have not ended.", "static"),
		mirrors: desc("mirror_pods", "Number of pods of the API that show static pods."),
		ephemeral: desc("managed_ephemeral_containers",
			"Number of ephemeral containers in the specifications of the node's pods."),
		volumes: prometheus.NewDesc("volume_manager_total_volumes",
			"Number of volumes by kind: of pods that have not ended (desired), and mounted (actual).",
			[]string{"plugin_name", "state"}, nil),
	})
}

// CountProtected adds the bytes of memory of pods that are kept from being reclaimed (memory QoS).
func (s *Set) CountProtected(protected func() (guaranteed, burstable int64)) {
	never := prometheus.GaugeOpts{
		Subsystem: subsystem,
		Name:      "memory_qos_node_memory_min_bytes",
		Help:      "Bytes of memory of guaranteed pods that are never reclaimed (memory.min).",
	}
	last := prometheus.GaugeOpts{
		Subsystem: subsystem,
		Name:      "memory_qos_node_memory_low_bytes",
		Help:      "Bytes of memory of burstable pods that are reclaimed last (memory.low).",
	}

	s.Registry.MustRegister(
		prometheus.NewGaugeFunc(never, func() float64 {
			guaranteed, _ := protected()
			return float64(guaranteed)
		}),
		prometheus.NewGaugeFunc(last, func() float64 {
			_, burstable := protected()
			return float64(burstable)
		}),
	)
}

// Describe implements prometheus.Collector.
func (c *counts) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.sandboxes, c.containers, c.desired, c.active, c.mirrors, c.ephemeral, c.volumes,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *counts) Collect(out chan<- prometheus.Metric) {
	c.countRuntime(out)
	c.countPods(out)
}

// states are those of containers, by their names in metrics.
var states = map[plan.State]string{
	plan.Created: "created",
	plan.Exited:  "exited",
	plan.Running: "running",
	plan.Unknown: "unknown",
}

func (c *counts) countRuntime(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), listTimeout)
	defer cancel()

	if running, err := c.runtime.Sandboxes(ctx, runtime.Selection{Running: true}); err == nil {
		out <- gauge(c.sandboxes, float64(len(running)))
	}

	all, err := c.runtime.Containers(ctx, runtime.Selection{})
	if err != nil {
		return
	}

	count := map[plan.State]int{}
	for _, one := range all {
		count[one.State]++
	}
	for state, name := range states {
		out <- gauge(c.containers, float64(count[state]), name)
	}
}

func (c *counts) countPods(out chan<- prometheus.Metric) {
	desired, active := map[string]int{}, map[string]int{}
	volumes := map[string]int{}
	debugging := 0
	for _, pod := range c.pods.List() {
		static := ""
		if podsource.Static(pod) {
			static = "true"
		}

		desired[static]++
		debugging += len(pod.Spec.EphemeralContainers)
		if pod.Status.Phase == v1.PodFailed || pod.Status.Phase == v1.PodSucceeded {
			continue
		}

		active[static]++
		for i := range pod.Spec.Volumes {
			volumes[c.mounts.PluginOf(pod.UID, &pod.Spec.Volumes[i])]++
		}
	}

	for _, static := range []string{"", "true"} {
		out <- gauge(c.desired, float64(desired[static]), static)
		out <- gauge(c.active, float64(active[static]), static)
	}

	c.countVolumes(out, volumes, "desired_state_of_world")
	c.countVolumes(out, c.mounts.Mounted(), "actual_state_of_world")
	out <- gauge(c.mirrors, float64(c.pods.MirrorCount()))
	out <- gauge(c.ephemeral, float64(debugging))
}

// countVolumes counts volumes that are in a state, by their plugins.
func (c *counts) countVolumes(out chan<- prometheus.Metric, volumes map[string]int, state string) {
	for plugin, n := range volumes {
		out <- gauge(c.volumes, float64(n), plugin, state)
	}
}

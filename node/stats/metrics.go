package stats

import (
	"context"
	"fmt"
	"time"

	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/runtime"
)

// Metrics returns one of kubelet's sets of metrics in Prometheus' text format: "" the agent's own,
// "resource", "cadvisor", "probes".
func (c *Collector) Metrics(ctx context.Context, set string) ([]byte, error) {
	p := &page{}
	var err error
	switch set {
	case "":
		c.own(ctx, p)
	case "resource":
		err = c.resource(ctx, p)
	case "cadvisor":
		err = c.cadvisor(ctx, p)
	case "probes":
	default:
		err = fmt.Errorf("there are no metrics %q", set)
	}

	return p.Bytes(), err
}

// containerMetric is a figure of each container; read returns false for one that does not have it.
type containerMetric struct {
	name, kind, help string
	read             func(runtime.ContainerStats) (float64, bool)
}

// resourceContainers are the figures of containers that metrics-server reads.
var resourceContainers = []containerMetric{
	{
		name: "container_cpu_usage_seconds_total",
		kind: "counter",
		help: "Cumulative cpu time consumed by the container in core-seconds",
		read: containerCPU,
	},
	{
		name: "container_memory_working_set_bytes",
		kind: "gauge",
		help: "Current working set of the container in bytes",
		read: containerWorkingSet,
	},
}

// startTime is another one. Metrics-server drops the whole pod for a start time of a container without its
// CPU time.
func startTime(started map[string]time.Time) containerMetric {
	return containerMetric{
		name: "container_start_time_seconds",
		kind: "gauge",
		help: "Start time of the container since unix epoch in seconds",
		read: func(s runtime.ContainerStats) (float64, bool) {
			_, ok := containerCPU(s)
			return float64(started[s.ID].UnixNano()) / 1e9, ok
		},
	}
}

// resourcePods are the figures of pods that metrics-server reads.
var resourcePods = []struct {
	name, kind, help string
	read             func(runtime.PodStats) (float64, bool)
}{
	{
		name: "pod_cpu_usage_seconds_total",
		kind: "counter",
		help: "Cumulative cpu time consumed by the pod in core-seconds",
		read: func(s runtime.PodStats) (float64, bool) { return coreSeconds(s.CPU) },
	},
	{
		name: "pod_memory_working_set_bytes",
		kind: "gauge",
		help: "Current working set of the pod in bytes",
		read: func(s runtime.PodStats) (float64, bool) { return workingSet(s.Memory) },
	},
}

// resource writes what metrics-server reads. The node's figures are good without those of pods.
func (c *Collector) resource(ctx context.Context, p *page) error {
	node, err := c.node(ctx, true)
	if err != nil {
		return err
	}

	p.single("node_cpu_usage_seconds_total", "counter",
		"Cumulative cpu time consumed by the node in core-seconds",
		float64(*node.CPU.UsageCoreNanoSeconds)/1e9)
	p.single("node_memory_working_set_bytes", "gauge",
		"Current working set of the node in bytes", float64(*node.Memory.WorkingSetBytes))

	// Without the runtime the page has the node's figures, and says that the others are missing.
	sandboxes, started, err := c.sandboxes(ctx)
	failed := 0.0
	if err != nil {
		failed = 1
	}

	withoutID := func(pod runtime.Pod, s runtime.ContainerStats) []string {
		return []string{"container", s.Name, "namespace", pod.Namespace, "pod", pod.Name}
	}
	for _, m := range resourceContainers {
		p.containers(m, sandboxes, withoutID)
	}

	p.containers(startTime(started), sandboxes, withoutID)

	for _, m := range resourcePods {
		p.head(m.name, m.kind, m.help)
		for _, s := range sandboxes {
			if v, ok := m.read(s); ok {
				p.value(m.name, v, "namespace", s.Pod.Namespace, "pod", s.Pod.Name)
			}
		}
	}

	for _, name := range []string{"resource_scrape_error", "scrape_error"} {
		p.single(name, "gauge",
			"1 if there was an error while getting container metrics, 0 otherwise", failed)
	}

	return nil
}

// cadvisorContainers are the figures of containers by the names that dashboards use most.
var cadvisorContainers = []containerMetric{
	{
		name: "container_cpu_usage_seconds_total",
		kind: "counter",
		help: "Cumulative cpu time consumed in seconds.",
		read: containerCPU,
	},
	{
		name: "container_memory_working_set_bytes",
		kind: "gauge",
		help: "Current working set in bytes.",
		read: containerWorkingSet,
	},
	{
		name: "container_memory_usage_bytes",
		kind: "gauge",
		help: "Current memory usage in bytes, including all memory.",
		read: containerMemory(func(m *statsapi.MemoryStats) *uint64 { return m.UsageBytes }),
	},
	{
		name: "container_memory_rss",
		kind: "gauge",
		help: "Size of RSS in bytes.",
		read: containerMemory(func(m *statsapi.MemoryStats) *uint64 { return m.RSSBytes }),
	},
	{
		name: "container_fs_usage_bytes",
		kind: "gauge",
		help: "Number of bytes that are consumed by the container on this filesystem.",
		read: containerLayer,
	},
}

// cadvisorNetwork are the figures of a pod's network.
var cadvisorNetwork = []struct {
	name string
	read func(statsapi.InterfaceStats) *uint64
}{
	{
		name: "container_network_receive_bytes_total",
		read: func(i statsapi.InterfaceStats) *uint64 { return i.RxBytes },
	},
	{
		name: "container_network_transmit_bytes_total",
		read: func(i statsapi.InterfaceStats) *uint64 { return i.TxBytes },
	},
}

// cadvisor writes the figures of pods by cAdvisor's names.
func (c *Collector) cadvisor(ctx context.Context, p *page) error {
	sandboxes, _, err := c.sandboxes(ctx)
	if err != nil {
		return err
	}

	for _, m := range cadvisorContainers {
		p.containers(m, sandboxes, func(pod runtime.Pod, s runtime.ContainerStats) []string {
			return []string{"container", s.Name, "id", s.ID, "namespace", pod.Namespace, "pod", pod.Name}
		})
	}

	for _, m := range cadvisorNetwork {
		p.head(m.name, "counter", "Cumulative count of bytes.")
		for _, s := range sandboxes {
			if s.Network == nil {
				continue
			}

			if v, ok := amount(m.read(s.Network.InterfaceStats)); ok {
				p.value(m.name, v,
					"interface", s.Network.Name, "namespace", s.Pod.Namespace, "pod", s.Pod.Name)
			}
		}
	}

	return nil
}

// containers writes a figure of all containers.
func (p *page) containers(
	m containerMetric, sandboxes []runtime.PodStats,
	labels func(runtime.Pod, runtime.ContainerStats) []string,
) {
	p.head(m.name, m.kind, m.help)
	for _, s := range sandboxes {
		for _, one := range s.Containers {
			if v, ok := m.read(one); ok {
				p.value(m.name, v, labels(s.Pod, one)...)
			}
		}
	}
}

func containerCPU(s runtime.ContainerStats) (float64, bool) { return coreSeconds(s.CPU) }

func containerWorkingSet(s runtime.ContainerStats) (float64, bool) { return workingSet(s.Memory) }

func containerMemory(read func(*statsapi.MemoryStats) *uint64) func(runtime.ContainerStats) (float64, bool) {
	return func(s runtime.ContainerStats) (float64, bool) {
		if s.Memory == nil {
			return 0, false
		}
		return amount(read(s.Memory))
	}
}

func containerLayer(s runtime.ContainerStats) (float64, bool) {
	if s.Rootfs == nil {
		return 0, false
	}
	return amount(s.Rootfs.UsedBytes)
}

func coreSeconds(u *statsapi.CPUStats) (float64, bool) {
	if u == nil || u.UsageCoreNanoSeconds == nil {
		return 0, false
	}
	return float64(*u.UsageCoreNanoSeconds) / 1e9, true
}

func workingSet(m *statsapi.MemoryStats) (float64, bool) {
	if m == nil {
		return 0, false
	}
	return amount(m.WorkingSetBytes)
}

func amount(n *uint64) (float64, bool) {
	if n == nil {
		return 0, false
	}
	return float64(*n), true
}

package stats

import (
	"context"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/runtime"
)

// Metrics writes one of kubelet's sets of metrics: "" the agent's own, "resource", "cadvisor", "probes".
func (c *Collector) Metrics(ctx context.Context, set string) ([]byte, error) {
	p := &page{}
	switch set {
	case "":
		c.own(ctx, p)
		return p.Bytes(), nil
	case "resource":
		return c.resource(ctx, p)
	case "cadvisor":
		return c.cadvisor(ctx, p)
	case "probes":
		return nil, nil
	}
	return nil, fmt.Errorf("there are no metrics %q", set)
}

// states are those of containers, by their names in metrics.
var states = []struct {
	is   plan.State
	name string
}{
	{plan.Created, "created"},
	{plan.Exited, "exited"},
	{plan.Running, "running"},
	{plan.Unknown, "unknown"},
}

// own are figures of the agent and of how many pods and containers run.
func (c *Collector) own(ctx context.Context, p *page) {
	p.head("kubelet_node_name", "gauge", "The node's name. The count is always 1.")
	p.value("kubelet_node_name", 1, "node", c.cfg.NodeName)
	if ready, err := c.cfg.Runtime.Sandboxes(ctx, runtime.Selection{Running: true}); err == nil {
		p.head("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox")
		p.value("kubelet_running_pods", float64(len(ready)))
	}
	if all, err := c.cfg.Runtime.Containers(ctx, runtime.Selection{}); err == nil {
		count := map[plan.State]int{}
		for _, one := range all {
			count[one.State]++
		}
		p.head("kubelet_running_containers", "gauge", "Number of containers by state")
		for _, state := range states {
			p.value("kubelet_running_containers", float64(count[state.is]), "container_state", state.name)
		}
	}
	p.head("kubelet_desired_pods", "gauge", "The number of pods the agent is being instructed to run")
	p.value("kubelet_desired_pods", float64(len(c.cfg.Pods())))
	process(p, c.start)
}

// process are the usual figures of a Go program, by the names of Prometheus' client.
func process(p *page, start time.Time) {
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	p.head("go_goroutines", "gauge", "Number of goroutines that currently exist.")
	p.value("go_goroutines", float64(goruntime.NumGoroutine()))
	p.head("go_memstats_heap_inuse_bytes", "gauge", "Number of heap bytes that are in use.")
	p.value("go_memstats_heap_inuse_bytes", float64(m.HeapInuse))
	p.head("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.")
	p.value("process_start_time_seconds", float64(start.UnixMilli())/1000)
	text, err := readFile("/proc/self/stat")
	if err != nil {
		return
	}
	// The fields after the program's name, which may hold blanks: 14 utime, 15 stime, 24 rss of proc_pid_stat(5).
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 22 {
		return
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	pages, _ := strconv.ParseFloat(fields[21], 64)
	p.head("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.")
	p.value("process_cpu_seconds_total", (user+system)*tick.Seconds())
	p.head("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.")
	p.value("process_resident_memory_bytes", pages*float64(os.Getpagesize()))
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		p.head("process_open_fds", "gauge", "Number of open file descriptors.")
		p.value("process_open_fds", float64(len(open)))
	}
}

// resource is what metrics-server reads.
func (c *Collector) resource(ctx context.Context, p *page) ([]byte, error) {
	node, err := c.node(ctx, true)
	if err != nil {
		return nil, err
	}
	p.head("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds")
	p.value("node_cpu_usage_seconds_total", float64(*node.CPU.UsageCoreNanoSeconds)/1e9)
	p.head("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes")
	p.value("node_memory_working_set_bytes", float64(*node.Memory.WorkingSetBytes))
	sandboxes, started, err := c.sandboxes(ctx)
	failed := 0.0
	if err != nil {
		failed = 1 // the node's figures are good all the same
	}
	each := func(name, kind, help string, read func(runtime.ContainerStats) (float64, bool)) {
		p.head(name, kind, help)
		for _, s := range sandboxes {
			for _, one := range s.Containers {
				if v, ok := read(one); ok {
					p.value(name, v, "container", one.Name, "namespace", s.Pod.Namespace, "pod", s.Pod.Name)
				}
			}
		}
	}
	each("container_cpu_usage_seconds_total", "counter",
		"Cumulative cpu time consumed by the container in core-seconds", containerCPU)
	each("container_memory_working_set_bytes", "gauge",
		"Current working set of the container in bytes", containerWorkingSet)
	each("container_start_time_seconds", "gauge",
		"Start time of the container since unix epoch in seconds",
		func(s runtime.ContainerStats) (float64, bool) {
			_, ok := containerCPU(s) // metrics-server drops the whole pod for a start time without the rest
			return float64(started[s.ID].UnixNano()) / 1e9, ok
		})
	pods := func(name, kind, help string, read func(runtime.PodStats) (float64, bool)) {
		p.head(name, kind, help)
		for _, s := range sandboxes {
			if v, ok := read(s); ok {
				p.value(name, v, "namespace", s.Pod.Namespace, "pod", s.Pod.Name)
			}
		}
	}
	pods("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds",
		func(s runtime.PodStats) (float64, bool) { return coreSeconds(s.CPU) })
	pods("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes",
		func(s runtime.PodStats) (float64, bool) { return workingSet(s.Memory) })
	for _, name := range []string{"resource_scrape_error", "scrape_error"} {
		p.head(name, "gauge", "1 if there was an error while getting container metrics, 0 otherwise")
		p.value(name, failed)
	}
	return p.Bytes(), nil
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

func containerCPU(s runtime.ContainerStats) (float64, bool) { return coreSeconds(s.CPU) }

func containerWorkingSet(s runtime.ContainerStats) (float64, bool) { return workingSet(s.Memory) }

func containerUsage(s runtime.ContainerStats) (float64, bool) {
	if s.Memory == nil {
		return 0, false
	}
	return amount(s.Memory.UsageBytes)
}

func containerRSS(s runtime.ContainerStats) (float64, bool) {
	if s.Memory == nil {
		return 0, false
	}
	return amount(s.Memory.RSSBytes)
}

func containerLayer(s runtime.ContainerStats) (float64, bool) {
	if s.Rootfs == nil {
		return 0, false
	}
	return amount(s.Rootfs.UsedBytes)
}

// cadvisorContainers are the figures of containers by the names that dashboards use most.
var cadvisorContainers = []struct {
	name, kind, help string
	read             func(runtime.ContainerStats) (float64, bool)
}{
	{
		"container_cpu_usage_seconds_total", "counter",
		"Cumulative cpu time consumed in seconds.", containerCPU,
	},
	{
		"container_memory_working_set_bytes", "gauge",
		"Current working set in bytes.", containerWorkingSet,
	},
	{
		"container_memory_usage_bytes", "gauge",
		"Current memory usage in bytes, including all memory.", containerUsage,
	},
	{
		"container_memory_rss", "gauge",
		"Size of RSS in bytes.", containerRSS,
	},
	{
		"container_fs_usage_bytes", "gauge",
		"Number of bytes that are consumed by the container on this filesystem.", containerLayer,
	},
}

// cadvisorNetwork are the figures of a pod's network.
var cadvisorNetwork = []struct {
	name string
	read func(statsapi.InterfaceStats) *uint64
}{
	{
		"container_network_receive_bytes_total",
		func(i statsapi.InterfaceStats) *uint64 { return i.RxBytes },
	},
	{
		"container_network_transmit_bytes_total",
		func(i statsapi.InterfaceStats) *uint64 { return i.TxBytes },
	},
}

// cadvisor writes the figures of pods by cAdvisor's names.
func (c *Collector) cadvisor(ctx context.Context, p *page) ([]byte, error) {
	sandboxes, _, err := c.sandboxes(ctx)
	if err != nil {
		return nil, err
	}

	for _, m := range cadvisorContainers {
		p.head(m.name, m.kind, m.help)
		for _, s := range sandboxes {
			for _, one := range s.Containers {
				if v, ok := m.read(one); ok {
					p.value(m.name, v,
						"container", one.Name, "id", one.ID, "namespace", s.Pod.Namespace, "pod", s.Pod.Name)
				}
			}
		}
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
	return p.Bytes(), nil
}

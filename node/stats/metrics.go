package stats

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
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

// own are figures of the agent and of how many pods and containers run.
func (c *Collector) own(ctx context.Context, p *page) {
	p.head("kubelet_node_name", "gauge", "The node's name. The count is always 1.")
	p.value("kubelet_node_name", 1, "node", c.cfg.NodeName)
	if answer, err := c.cfg.Runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{}); err == nil {
		ready := 0
		for _, s := range answer.Items {
			if s.State == cri.PodSandboxState_SANDBOX_READY {
				ready++
			}
		}

		p.head("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox")
		p.value("kubelet_running_pods", float64(ready))
	}

	if answer, err := c.cfg.Runtime.ListContainers(ctx, &cri.ListContainersRequest{}); err == nil {
		count := map[string]int{"created": 0, "exited": 0, "running": 0, "unknown": 0}
		for _, one := range answer.Containers {
			count[strings.ToLower(strings.TrimPrefix(one.State.String(), "CONTAINER_"))]++
		}

		p.head("kubelet_running_containers", "gauge", "Number of containers by state")
		for _, state := range []string{"created", "exited", "running", "unknown"} {
			p.value("kubelet_running_containers", float64(count[state]), "container_state", state)
		}
	}

	p.head("kubelet_desired_pods", "gauge", "The number of pods the agent is being instructed to run")
	p.value("kubelet_desired_pods", float64(len(c.cfg.Pods())))
	process(p, c.start)
}

// process are the usual figures of a Go program, by the names of Prometheus' client.
func process(p *page, start time.Time) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	p.head("go_goroutines", "gauge", "Number of goroutines that currently exist.")
	p.value("go_goroutines", float64(runtime.NumGoroutine()))
	p.head("go_memstats_heap_inuse_bytes", "gauge", "Number of heap bytes that are in use.")
	p.value("go_memstats_heap_inuse_bytes", float64(m.HeapInuse))
	p.head("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.")
	p.value("process_start_time_seconds", float64(start.UnixMilli())/1000)
	text, err := readFile("/proc/self/stat")
	if err != nil {
		return
	}

	// The fields after the program's name, which may hold blanks: 14 utime, 15 stime, 24 rss of
	// proc_pid_stat(5).
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

	p.head("node_cpu_usage_seconds_total",
		"counter", "Cumulative cpu time consumed by the node in core-seconds")
	p.value("node_cpu_usage_seconds_total", float64(*node.CPU.UsageCoreNanoSeconds)/1e9)
	p.head("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes")
	p.value("node_memory_working_set_bytes", float64(*node.Memory.WorkingSetBytes))
	sandboxes, started, err := c.sandboxes(ctx)
	failed := 0.0
	if err != nil {
		// the node's figures are good all the same
		failed = 1
	}

	each := func(name, kind, help string, read func(*cri.ContainerStats) (float64, bool)) {
		p.head(name, kind, help)
		for _, s := range sandboxes {
			for _, one := range s.Linux.GetContainers() {
				if v, ok := read(one); ok {
					p.value(
						name,
						v,
						"container",
						one.GetAttributes().GetMetadata().GetName(),
						"namespace",
						s.Attributes.Metadata.Namespace,
						"pod",
						s.Attributes.Metadata.Name,
					)
				}
			}
		}
	}

	each("container_cpu_usage_seconds_total",
		"counter", "Cumulative cpu time consumed by the container in core-seconds", containerCPU)
	each("container_memory_working_set_bytes",
		"gauge", "Current working set of the container in bytes", containerWorkingSet)
	each("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds", func(s *cri.ContainerStats) (float64, bool) {
		// metrics-server drops the whole pod for a start time without the rest
		_, ok := containerCPU(s)
		return float64(started[s.GetAttributes().GetId()]) / 1e9, ok
	})

	pods := func(name, kind, help string, read func(*cri.PodSandboxStats) (float64, bool)) {
		p.head(name, kind, help)
		for _, s := range sandboxes {
			if v, ok := read(s); ok {
				p.value(
					name,
					v,
					"namespace",
					s.Attributes.Metadata.Namespace,
					"pod",
					s.Attributes.Metadata.Name,
				)
			}
		}
	}

	pods("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds", func(s *cri.PodSandboxStats) (float64, bool) {
		u := s.Linux.GetCpu().GetUsageCoreNanoSeconds()
		return float64(u.GetValue()) / 1e9, u != nil
	})

	pods("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", func(s *cri.PodSandboxStats) (float64, bool) {
		u := s.Linux.GetMemory().GetWorkingSetBytes()
		return float64(u.GetValue()), u != nil
	})

	for _, name := range []string{"resource_scrape_error", "scrape_error"} {
		p.head(name, "gauge", "1 if there was an error while getting container metrics, 0 otherwise")
		p.value(name, failed)
	}

	return p.Bytes(), nil
}

func containerCPU(s *cri.ContainerStats) (float64, bool) {
	u := s.GetCpu().GetUsageCoreNanoSeconds()
	return float64(u.GetValue()) / 1e9, u != nil
}

func containerWorkingSet(s *cri.ContainerStats) (float64, bool) {
	u := s.GetMemory().GetWorkingSetBytes()
	return float64(u.GetValue()), u != nil
}

// cadvisor are the names that dashboards use most.
func (c *Collector) cadvisor(ctx context.Context, p *page) ([]byte, error) {
	sandboxes, _, err := c.sandboxes(ctx)
	if err != nil {
		return nil, err
	}

	for _, m := range []struct {
		name, kind, help string
		read             func(*cri.ContainerStats) (float64, bool)
	}{
		{
			"container_cpu_usage_seconds_total",
			"counter",
			"Cumulative cpu time consumed in seconds.",
			containerCPU,
		},
		{"container_memory_working_set_bytes", "gauge", "Current working set in bytes.", containerWorkingSet},
		{"container_memory_usage_bytes", "gauge", "Current memory usage in bytes, including all memory.", func(s *cri.ContainerStats) (float64, bool) {
			u := s.GetMemory().GetUsageBytes()
			return float64(u.GetValue()), u != nil
		}},
		{"container_memory_rss", "gauge", "Size of RSS in bytes.", func(s *cri.ContainerStats) (float64, bool) {
			u := s.GetMemory().GetRssBytes()
			return float64(u.GetValue()), u != nil
		}},
		{"container_fs_usage_bytes", "gauge", "Number of bytes that are consumed by the container on this " +
			"filesystem.", func(s *cri.ContainerStats) (float64, bool) {
			u := s.GetWritableLayer().GetUsedBytes()
			return float64(u.GetValue()), u != nil
		}},
	} {
		p.head(m.name, m.kind, m.help)
		for _, s := range sandboxes {
			for _, one := range s.Linux.GetContainers() {
				if v, ok := m.read(one); ok {
					p.value(
						m.name,
						v,
						"container",
						one.GetAttributes().GetMetadata().GetName(),
						"id",
						one.GetAttributes().GetId(),
						"namespace",
						s.Attributes.Metadata.Namespace,
						"pod",
						s.Attributes.Metadata.Name,
					)
				}
			}
		}
	}

	for _, m := range []struct {
		name string
		read func(*cri.NetworkInterfaceUsage) *cri.UInt64Value
	}{
		{"container_network_receive_bytes_total", (*cri.NetworkInterfaceUsage).GetRxBytes},
		{"container_network_transmit_bytes_total", (*cri.NetworkInterfaceUsage).GetTxBytes},
	} {
		p.head(m.name, "counter", "Cumulative count of bytes.")
		for _, s := range sandboxes {
			i := s.Linux.GetNetwork().GetDefaultInterface()
			if v := m.read(i); v != nil {
				p.value(
					m.name,
					float64(v.Value),
					"interface",
					i.Name,
					"namespace",
					s.Attributes.Metadata.Namespace,
					"pod",
					s.Attributes.Metadata.Name,
				)
			}
		}
	}

	return p.Bytes(), nil
}

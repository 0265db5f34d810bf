package stats

import (
	"context"
	"time"

	"github.com/trivet-node/trivet/node/exposition"
	"github.com/trivet-node/trivet/node/usage"
)

// Resource writes /metrics/resource, which metrics-server reads. Without the runtime the page has the node's
// figures, and says that the others are missing.
func (c *Collector) Resource(ctx context.Context, w *exposition.Writer) (until time.Time, err error) {
	s, err := c.cfg.Meter.Take(ctx, usage.CPUAndMemory)
	if err != nil {
		return time.Time{}, err
	}

	writeNode(w, s)
	writeContainers(w, s)
	writePods(w, s)

	failed := uint64(0)
	if s.Err != nil || s.Node == nil {
		failed = 1
	}

	w.Family("resource_scrape_error", exposition.Gauge,
		"1 if there was an error while getting container metrics, 0 otherwise")
	w.Uint(failed, time.Time{})

	return validUntil(s), nil
}

// validUntil is how long a page of a snapshot may be given to others.
func validUntil(s *usage.Snapshot) time.Time {
	if s.Err != nil || s.Node == nil {
		return time.Time{}
	}
	return s.Time.Add(usage.MaxAge)
}

// resource is a figure of a group.
type resource struct {
	name, kind, help string
	write            func(w *exposition.Writer, g *usage.Group, labels exposition.Labels)
}

func (r resource) family(w *exposition.Writer) { w.Family(r.name, r.kind, r.help) }

func writeCPU(w *exposition.Writer, g *usage.Group, labels exposition.Labels) {
	w.Seconds(g.CPU, g.Time, labels)
}

func writeWorkingSet(w *exposition.Writer, g *usage.Group, labels exposition.Labels) {
	w.Uint(g.WorkingSet, g.Time, labels)
}

func writeSwap(w *exposition.Writer, g *usage.Group, labels exposition.Labels) {
	w.Uint(g.Swap, g.Time, labels)
}

func writeSwapLimit(w *exposition.Writer, g *usage.Group, labels exposition.Labels) {
	if g.SwapLimit != nil {
		w.Uint(max(*g.SwapLimit, g.Swap), g.Time, labels)
	}
}

var nodeResources = []resource{
	{
		name:  "node_cpu_usage_seconds_total",
		kind:  exposition.Counter,
		help:  "Cumulative cpu time consumed by the node in core-seconds",
		write: writeCPU,
	},
	{
		name:  "node_memory_working_set_bytes",
		kind:  exposition.Gauge,
		help:  "Current working set of the node in bytes",
		write: writeWorkingSet,
	},
	{
		name:  "node_swap_usage_bytes",
		kind:  exposition.Gauge,
		help:  "Current swap usage of the node in bytes. Reported only on non-windows systems",
		write: writeSwap,
	},
}

func writeNode(w *exposition.Writer, s *usage.Snapshot) {
	if s.Node == nil {
		return
	}
	for _, r := range nodeResources {
		r.family(w)
		r.write(w, s.Node, "")
	}
}

var containerResources = []resource{
	{
		name:  "container_cpu_usage_seconds_total",
		kind:  exposition.Counter,
		help:  "Cumulative cpu time consumed by the container in core-seconds",
		write: writeCPU,
	},
	{
		name:  "container_memory_working_set_bytes",
		kind:  exposition.Gauge,
		help:  "Current working set of the container in bytes",
		write: writeWorkingSet,
	},
	{
		name:  "container_swap_usage_bytes",
		kind:  exposition.Gauge,
		help:  "Current amount of the container swap usage in bytes. Reported only on non-windows systems",
		write: writeSwap,
	},
	{
		name:  "container_swap_limit_bytes",
		kind:  exposition.Gauge,
		help:  "Current amount of the container swap limit in bytes. Reported only on non-windows systems",
		write: writeSwapLimit,
	},
}

// writeContainers writes the figures of containers that run and have all of them: metrics-server drops the
// whole pod for a container with a start time and without CPU.
func writeContainers(w *exposition.Writer, s *usage.Snapshot) {
	type row struct {
		group  *usage.Group
		labels exposition.Labels
		born   time.Time
	}

	var rows []row
	for _, p := range s.Pods {
		for _, c := range p.Containers {
			if c.Group == nil {
				continue
			}

			labels := exposition.Pairs("container", c.Name, "namespace", p.Namespace, "pod", p.Name)
			rows = append(rows, row{c.Group, labels, c.Created})
		}
	}

	for _, r := range containerResources {
		r.family(w)
		for _, one := range rows {
			r.write(w, one.group, one.labels)
		}
	}

	w.Family("container_start_time_seconds", exposition.Gauge,
		"Start time of the container since unix epoch in seconds")
	for _, one := range rows {
		w.Seconds(time.Duration(one.born.UnixNano()), time.Time{}, one.labels)
	}
}

var podResources = []resource{
	{
		name:  "pod_cpu_usage_seconds_total",
		kind:  exposition.Counter,
		help:  "Cumulative cpu time consumed by the pod in core-seconds",
		write: writeCPU,
	},
	{
		name:  "pod_memory_working_set_bytes",
		kind:  exposition.Gauge,
		help:  "Current working set of the pod in bytes",
		write: writeWorkingSet,
	},
	{
		name:  "pod_swap_usage_bytes",
		kind:  exposition.Gauge,
		help:  "Current amount of the pod swap usage in bytes. Reported only on non-windows systems",
		write: writeSwap,
	},
}

func writePods(w *exposition.Writer, s *usage.Snapshot) {
	labels := make([]exposition.Labels, len(s.Pods))
	for i, p := range s.Pods {
		labels[i] = exposition.Pairs("namespace", p.Namespace, "pod", p.Name)
	}

	for _, r := range podResources {
		r.family(w)
		for i := range s.Pods {
			if g := s.Pods[i].Group; g != nil {
				r.write(w, g, labels[i])
			}
		}
	}
}

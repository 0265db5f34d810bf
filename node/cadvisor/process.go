package cadvisor

import (
	counters "github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/node/exposition"
	"github.com/trivet-node/trivet/node/usage"
)

// processMetrics are of the processes of a group.
var processMetrics = []metric{
	{
		name:  "container_processes",
		kind:  exposition.Gauge,
		help:  "Number of processes running inside the container.",
		write: processes(func(p *usage.Processes) uint64 { return p.Count }),
	},
	{
		name:  "container_file_descriptors",
		kind:  exposition.Gauge,
		help:  "Number of open file descriptors for the container.",
		write: counted(func(p *usage.Processes) uint64 { return p.FDs }),
	},
	{
		name:  "container_sockets",
		kind:  exposition.Gauge,
		help:  "Number of open sockets for the container.",
		write: counted(func(p *usage.Processes) uint64 { return p.Sockets }),
	},
	{
		name:  "container_threads_max",
		kind:  exposition.Gauge,
		help:  "Maximum number of threads allowed inside the container, infinity if value is zero",
		write: number(func(g *usage.Group) uint64 { return g.PIDLimit }),
	},
	{
		name:  "container_threads",
		kind:  exposition.Gauge,
		help:  "Number of threads running inside the container",
		write: number(func(g *usage.Group) uint64 { return g.PIDs }),
	},
	{
		name:  "container_ulimits_soft",
		kind:  exposition.Gauge,
		help:  "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice",
		write: writeUlimit,
	},
}

// pressureMetrics are how long tasks waited for a resource: all of them (stalled), or some (waiting).
var pressureMetrics = []metric{
	{
		name:  "container_pressure_cpu_stalled_seconds_total",
		kind:  exposition.Counter,
		help:  "Total time duration no tasks in the container could make progress due to CPU congestion.",
		write: stalled(func(p *counters.Stalls) counters.Stall { return p.CPU.Full }),
	},
	{
		name:  "container_pressure_cpu_waiting_seconds_total",
		kind:  exposition.Counter,
		help:  "Total time duration tasks in the container have waited due to CPU congestion.",
		write: stalled(func(p *counters.Stalls) counters.Stall { return p.CPU.Some }),
	},
	{
		name:  "container_pressure_memory_stalled_seconds_total",
		kind:  exposition.Counter,
		help:  "Total time duration no tasks in the container could make progress due to memory congestion.",
		write: stalled(func(p *counters.Stalls) counters.Stall { return p.Memory.Full }),
	},
	{
		name:  "container_pressure_memory_waiting_seconds_total",
		kind:  exposition.Counter,
		help:  "Total time duration tasks in the container have waited due to memory congestion.",
		write: stalled(func(p *counters.Stalls) counters.Stall { return p.Memory.Some }),
	},
	{
		name:  "container_pressure_io_stalled_seconds_total",
		kind:  exposition.Counter,
		help:  "Total time duration no tasks in the container could make progress due to IO congestion.",
		write: stalled(func(p *counters.Stalls) counters.Stall { return p.IO.Full }),
	},
	{
		name:  "container_pressure_io_waiting_seconds_total",
		kind:  exposition.Counter,
		help:  "Total time duration tasks in the container have waited due to IO congestion.",
		write: stalled(func(p *counters.Stalls) counters.Stall { return p.IO.Some }),
	},
}

func processes(read func(*usage.Processes) uint64) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) {
		if r.Processes != nil {
			w.Uint(read(r.Processes), r.Time, r.labels)
		}
	}
}

// counted is a figure that a group with too many processes does not have.
func counted(read func(*usage.Processes) uint64) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) {
		if r.Processes != nil && r.Processes.Counted {
			w.Uint(read(r.Processes), r.Time, r.labels)
		}
	}
}

const maxOpenFiles = exposition.Labels(`ulimit="max_open_files"`)

func writeUlimit(w *exposition.Writer, r *row) {
	if r.Processes != nil && r.Processes.MaxOpenFiles != nil {
		w.Float(float64(*r.Processes.MaxOpenFiles), r.Time, r.labels, maxOpenFiles)
	}
}

func stalled(read func(*counters.Stalls) counters.Stall) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) {
		if r.Stalls != nil {
			w.Seconds(read(r.Stalls).Total, r.Time, r.labels)
		}
	}
}

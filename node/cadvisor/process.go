package cadvisor

import (
	"math"

	counters "github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/internal/procfs"
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
		write: opened(false, func(o procfs.Open) uint64 { return o.Descriptors }),
	},
	{
		name:  "container_sockets",
		kind:  exposition.Gauge,
		help:  "Number of open sockets for the container.",
		write: opened(true, func(o procfs.Open) uint64 { return o.Sockets }),
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

// opened is a figure of what the processes have open, which is not known of a group with very many; sockets
// are not known of one with many.
func opened(sockets bool, read func(procfs.Open) uint64) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) {
		if p := r.Processes; p != nil && !p.Open.Unknown && (!sockets || !p.Open.SocketsUnknown) {
			w.Uint(read(p.Open), r.Time, r.labels)
		}
	}
}

const maxOpenFiles = exposition.Labels(`ulimit="max_open_files"`)

func writeUlimit(w *exposition.Writer, r *row) {
	if r.Processes == nil || r.Processes.MaxOpenFiles == nil {
		return
	}

	limit := float64(*r.Processes.MaxOpenFiles)
	if *r.Processes.MaxOpenFiles > math.MaxInt64 {
		limit = -1
	}

	w.Float(limit, r.Time, r.labels, maxOpenFiles)
}

func stalled(read func(*counters.Stalls) counters.Stall) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) {
		if r.Stalls != nil {
			w.Seconds(read(r.Stalls).Total, r.Time, r.labels)
		}
	}
}

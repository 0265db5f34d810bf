package cadvisor

import (
	counters "github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/node/exposition"
	"github.com/trivet-node/trivet/node/usage"
)

// memoryMetrics are the use of memory.
var memoryMetrics = []metric{
	{
		name:  "container_memory_cache",
		kind:  exposition.Gauge,
		help:  "Number of bytes of page cache memory.",
		write: number(func(g *usage.Group) uint64 { return g.Cache }),
	},
	{
		name:  "container_memory_rss",
		kind:  exposition.Gauge,
		help:  "Size of RSS in bytes.",
		write: number(func(g *usage.Group) uint64 { return g.RSS }),
	},
	{
		name:  "container_memory_kernel_usage",
		kind:  exposition.Gauge,
		help:  "Size of kernel memory allocated in bytes.",
		write: number(func(g *usage.Group) uint64 { return g.Kernel }),
	},
	{
		name:  "container_memory_mapped_file",
		kind:  exposition.Gauge,
		help:  "Size of memory mapped files in bytes.",
		write: number(func(g *usage.Group) uint64 { return g.MappedFile }),
	},
	{
		name:  "container_memory_swap",
		kind:  exposition.Gauge,
		help:  "Container swap usage in bytes.",
		write: number(func(g *usage.Group) uint64 { return g.Swap }),
	},
	{
		name:  "container_memory_failcnt",
		kind:  exposition.Counter,
		help:  "Number of memory usage hits limits",
		write: number(func(g *usage.Group) uint64 { return g.LimitHits }),
	},
	{
		name:  "container_memory_usage_bytes",
		kind:  exposition.Gauge,
		help:  "Current memory usage in bytes, including all memory regardless of when it was accessed",
		write: number(func(g *usage.Group) uint64 { return g.Memory }),
	},
	{
		name:  "container_memory_max_usage_bytes",
		kind:  exposition.Gauge,
		help:  "Maximum memory usage recorded in bytes",
		write: number(func(g *usage.Group) uint64 { return g.MemoryPeak }),
	},
	{
		name:  "container_memory_working_set_bytes",
		kind:  exposition.Gauge,
		help:  "Current working set in bytes.",
		write: number(func(g *usage.Group) uint64 { return g.WorkingSet }),
	},
	{
		name:  "container_memory_total_active_file_bytes",
		kind:  exposition.Gauge,
		help:  "Current total active file in bytes.",
		write: number(func(g *usage.Group) uint64 { return g.ActiveFile }),
	},
	{
		name:  "container_memory_total_inactive_file_bytes",
		kind:  exposition.Gauge,
		help:  "Current total inactive file in bytes.",
		write: number(func(g *usage.Group) uint64 { return g.InactiveFile }),
	},
	{
		name:  "container_memory_failures_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of memory allocation failures.",
		write: writeFaults,
	},
	{
		name:  "container_memory_events_high_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of memory.high throttle events for the container",
		write: number(func(g *usage.Group) uint64 { return unified(g).HighEvents }),
	},
	{
		name:  "container_memory_events_max_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of memory.max limit hit events for the container",
		write: number(func(g *usage.Group) uint64 { return g.LimitHits }),
	},
	{
		name:  "container_memory_file_dirty_bytes",
		kind:  exposition.Gauge,
		help:  "Number of bytes of file cache that has been modified but not yet written back to disk.",
		write: number(func(g *usage.Group) uint64 { return g.Dirty }),
	},
	{
		name:  "container_memory_file_writeback_bytes",
		kind:  exposition.Gauge,
		help:  "Number of bytes of file cache that is currently being written back to disk.",
		write: number(func(g *usage.Group) uint64 { return g.Writeback }),
	},
	{
		name:  "container_memory_pgscan_total",
		kind:  exposition.Counter,
		help:  "Cumulative number of pages scanned by the page reclaim algorithm.",
		write: number(func(g *usage.Group) uint64 { return unified(g).PagesScanned }),
	},
	{
		name:  "container_memory_pgsteal_total",
		kind:  exposition.Counter,
		help:  "Cumulative number of pages reclaimed by the page reclaim algorithm.",
		write: number(func(g *usage.Group) uint64 { return unified(g).PagesReclaimed }),
	},
	{
		name:  "container_memory_workingset_refault_file_total",
		kind:  exposition.Counter,
		help:  "Cumulative number of refaults of previously evicted file pages.",
		write: number(func(g *usage.Group) uint64 { return g.RefaultsFile }),
	},
	{
		name:  "container_memory_workingset_refault_anon_total",
		kind:  exposition.Counter,
		help:  "Cumulative number of refaults of previously evicted anonymous pages.",
		write: number(func(g *usage.Group) uint64 { return g.RefaultsAnon }),
	},
	{
		name:  "container_oom_events_total",
		kind:  exposition.Counter,
		help:  "Count of out of memory events observed for the container",
		write: number(func(g *usage.Group) uint64 { return g.OOMKills }),
	},
}

// The ways to count page faults: of the group alone, and with the groups below it.
const (
	ownFaults      = exposition.Labels(`failure_type="pgfault",scope="container"`)
	ownMajorFaults = exposition.Labels(`failure_type="pgmajfault",scope="container"`)
	faults         = exposition.Labels(`failure_type="pgfault",scope="hierarchy"`)
	majorFaults    = exposition.Labels(`failure_type="pgmajfault",scope="hierarchy"`)
)

func writeFaults(w *exposition.Writer, r *row) {
	w.Uint(r.OwnPageFaults, r.Time, r.labels, ownFaults)
	w.Uint(r.OwnMajorPageFaults, r.Time, r.labels, ownMajorFaults)
	w.Uint(r.PageFaults, r.Time, r.labels, faults)
	w.Uint(r.MajorPageFaults, r.Time, r.labels, majorFaults)
}

// unified are the counters that only cgroup v2 has; zero on v1, as with kubelet.
func unified(g *usage.Group) counters.UnifiedMemory {
	if g.V2 == nil {
		return counters.UnifiedMemory{}
	}
	return *g.V2
}

// swapLimit is 0 for none.
func swapLimit(g *usage.Group) uint64 {
	if g.SwapLimit == nil {
		return 0
	}
	return *g.SwapLimit
}

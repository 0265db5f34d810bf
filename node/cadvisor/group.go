package cadvisor

import (
	"time"

	"github.com/trivet-node/trivet/node/exposition"
	"github.com/trivet-node/trivet/node/usage"
)

// generalMetrics are of the group itself.
var generalMetrics = []metric{
	{
		name:  "container_last_seen",
		kind:  exposition.Gauge,
		help:  "Last time a container was seen by the exporter",
		write: writeSeen,
	},
	{
		name:  "container_creation_time_seconds",
		kind:  exposition.Gauge,
		help:  "Container creation time since unix epoch in seconds.",
		write: writeCreated,
	},
	{
		name:  "container_start_time_seconds",
		kind:  exposition.Gauge,
		help:  "Start time of the container since unix epoch in seconds.",
		write: writeCreated,
	},
}

// cpuMetrics are the use of processors.
var cpuMetrics = []metric{
	{
		name:  "container_cpu_user_seconds_total",
		kind:  exposition.Counter,
		help:  "Cumulative user cpu time consumed in seconds.",
		write: seconds(func(g *usage.Group) time.Duration { return g.User }),
	},
	{
		name:  "container_cpu_system_seconds_total",
		kind:  exposition.Counter,
		help:  "Cumulative system cpu time consumed in seconds.",
		write: seconds(func(g *usage.Group) time.Duration { return g.System }),
	},
	{
		name:  "container_cpu_usage_seconds_total",
		kind:  exposition.Counter,
		help:  "Cumulative cpu time consumed in seconds.",
		write: writeCPU,
	},
	{
		name:  "container_cpu_cfs_periods_total",
		kind:  exposition.Counter,
		help:  "Number of elapsed enforcement period intervals.",
		write: quota(number(func(g *usage.Group) uint64 { return g.Throttling.Periods })),
	},
	{
		name:  "container_cpu_cfs_throttled_periods_total",
		kind:  exposition.Counter,
		help:  "Number of throttled period intervals.",
		write: quota(number(func(g *usage.Group) uint64 { return g.Throttling.Throttled })),
	},
	{
		name:  "container_cpu_cfs_throttled_seconds_total",
		kind:  exposition.Counter,
		help:  "Total time duration the container has been throttled.",
		write: quota(seconds(func(g *usage.Group) time.Duration { return g.Throttling.ThrottledTime })),
	},
	{
		name:  "container_cpu_cfs_burst_periods_total",
		kind:  exposition.Counter,
		help:  "Number of periods when burst occurs.",
		write: quota(number(func(g *usage.Group) uint64 { return g.Throttling.Bursts })),
	},
	{
		name:  "container_cpu_cfs_burst_seconds_total",
		kind:  exposition.Counter,
		help:  "Total time duration the container has been bursted.",
		write: quota(seconds(func(g *usage.Group) time.Duration { return g.Throttling.BurstTime })),
	},
}

// specMetrics are limits, as they are in force.
var specMetrics = []metric{
	{
		name:  "container_spec_cpu_period",
		kind:  exposition.Gauge,
		help:  "CPU period of the container.",
		write: spec(func(g *usage.Group) uint64 { return g.Limits.Period }),
	},
	{
		name:  "container_spec_cpu_quota",
		kind:  exposition.Gauge,
		help:  "CPU quota of the container.",
		write: quota(spec(func(g *usage.Group) uint64 { return g.Limits.Quota })),
	},
	{
		name:  "container_spec_cpu_shares",
		kind:  exposition.Gauge,
		help:  "CPU share of the container.",
		write: spec(func(g *usage.Group) uint64 { return g.Limits.Shares }),
	},
	{
		name:  "container_spec_memory_limit_bytes",
		kind:  exposition.Gauge,
		help:  "Memory limit for the container.",
		write: spec(func(g *usage.Group) uint64 { return g.MemoryLimit }),
	},
	{
		name:  "container_spec_memory_swap_limit_bytes",
		kind:  exposition.Gauge,
		help:  "Memory swap limit for the container.",
		write: spec(func(g *usage.Group) uint64 { return swapLimit(g) }),
	},
	{
		name:  "container_spec_memory_reservation_limit_bytes",
		kind:  exposition.Gauge,
		help:  "Memory reservation limit for the container.",
		write: spec(func(g *usage.Group) uint64 { return g.Limits.Reservation }),
	},
}

// number is the figure of a group.
func number(read func(*usage.Group) uint64) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) { w.Uint(read(r.Group), r.Time, r.labels) }
}

// spec is a figure that has no time.
func spec(read func(*usage.Group) uint64) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) { w.Uint(read(r.Group), time.Time{}, r.labels) }
}

// seconds is a time of a group.
func seconds(read func(*usage.Group) time.Duration) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) { w.Seconds(read(r.Group), r.Time, r.labels) }
}

// quota is shown only for groups whose use of processors is limited.
func quota(write func(*exposition.Writer, *row)) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) {
		if r.Limits.Quota != 0 {
			write(w, r)
		}
	}
}

const allCPUs = exposition.Labels(`cpu="total"`)

func writeCPU(w *exposition.Writer, r *row) {
	if r.CPU > 0 {
		w.Seconds(r.CPU, r.Time, r.labels, allCPUs)
	}
}

func writeSeen(w *exposition.Writer, r *row) { w.Uint(uint64(r.Time.Unix()), r.Time, r.labels) }

func writeCreated(w *exposition.Writer, r *row) {
	if !r.created.IsZero() {
		w.Uint(uint64(r.created.Unix()), time.Time{}, r.labels)
	}
}

package cadvisor

import (
	"strconv"
	"time"

	counters "github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/node/exposition"
	"github.com/trivet-node/trivet/node/machine"
)

// diskMetrics are file systems of the machine, and what groups did on block devices. The groups count bytes
// and operations; all else is known for the whole machine only.
var diskMetrics = []metric{
	{
		name:  "container_fs_inodes_free",
		kind:  exposition.Gauge,
		help:  "Number of available Inodes",
		write: onDisks(func(d *machine.Disk) uint64 { return d.InodesFree }),
	},
	{
		name:  "container_fs_inodes_total",
		kind:  exposition.Gauge,
		help:  "Number of Inodes",
		write: onDisks(func(d *machine.Disk) uint64 { return d.Inodes }),
	},
	{
		name:  "container_fs_limit_bytes",
		kind:  exposition.Gauge,
		help:  "Number of bytes that can be consumed by the container on this filesystem.",
		write: onDisks(func(d *machine.Disk) uint64 { return d.Size }),
	},
	{
		name:  "container_fs_usage_bytes",
		kind:  exposition.Gauge,
		help:  "Number of bytes that are consumed by the container on this filesystem.",
		write: onDisks(func(d *machine.Disk) uint64 { return d.Used }),
	},
	{
		name:  "container_fs_reads_bytes_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of bytes read",
		write: onDevices(func(d *counters.Device) uint64 { return d.Bytes[counters.Read] }),
	},
	{
		name: "container_fs_reads_total",
		kind: exposition.Counter,
		help: "Cumulative count of reads completed",
		write: both(
			onDevices(func(d *counters.Device) uint64 { return d.Requests[counters.Read] }),
			diskIO(func(d *machine.DiskIO) uint64 { return d.Reads }),
		),
	},
	{
		name:  "container_fs_sector_reads_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of sector reads completed",
		write: diskIO(func(d *machine.DiskIO) uint64 { return d.SectorsRead }),
	},
	{
		name:  "container_fs_reads_merged_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of reads merged",
		write: diskIO(func(d *machine.DiskIO) uint64 { return d.ReadsMerged }),
	},
	{
		name:  "container_fs_read_seconds_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of seconds spent reading",
		write: diskTime(func(d *machine.DiskIO) time.Duration { return d.ReadTime }),
	},
	{
		name:  "container_fs_writes_bytes_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of bytes written",
		write: onDevices(func(d *counters.Device) uint64 { return d.Bytes[counters.Write] }),
	},
	{
		name: "container_fs_writes_total",
		kind: exposition.Counter,
		help: "Cumulative count of writes completed",
		write: both(
			onDevices(func(d *counters.Device) uint64 { return d.Requests[counters.Write] }),
			diskIO(func(d *machine.DiskIO) uint64 { return d.Writes }),
		),
	},
	{
		name:  "container_fs_sector_writes_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of sector writes completed",
		write: diskIO(func(d *machine.DiskIO) uint64 { return d.SectorsWritten }),
	},
	{
		name:  "container_fs_writes_merged_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of writes merged",
		write: diskIO(func(d *machine.DiskIO) uint64 { return d.WritesMerged }),
	},
	{
		name:  "container_fs_write_seconds_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of seconds spent writing",
		write: diskTime(func(d *machine.DiskIO) time.Duration { return d.WriteTime }),
	},
	{
		name:  "container_fs_io_current",
		kind:  exposition.Gauge,
		help:  "Number of I/Os currently in progress",
		write: diskIO(func(d *machine.DiskIO) uint64 { return d.InProgress }),
	},
	{
		name:  "container_fs_io_time_seconds_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of seconds spent doing I/Os",
		write: diskTime(func(d *machine.DiskIO) time.Duration { return d.Time }),
	},
	{
		name:  "container_fs_io_time_weighted_seconds_total",
		kind:  exposition.Counter,
		help:  "Cumulative weighted I/O time in seconds",
		write: diskTime(func(d *machine.DiskIO) time.Duration { return d.TimeWeight }),
	},
	{
		name:  "container_fs_io_cost_usage_seconds_total",
		kind:  exposition.Counter,
		help:  "Cumulative IOCost usage in seconds",
		write: cost(func(c *counters.Cost) time.Duration { return c.Usage }),
	},
	{
		name:  "container_fs_io_cost_wait_seconds_total",
		kind:  exposition.Counter,
		help:  "Cumulative IOCost wait in seconds",
		write: cost(func(c *counters.Cost) time.Duration { return c.Wait }),
	},
	{
		name:  "container_fs_io_cost_indebt_seconds_total",
		kind:  exposition.Counter,
		help:  "Cumulative IOCost debt in seconds",
		write: cost(func(c *counters.Cost) time.Duration { return c.InDebt }),
	},
	{
		name:  "container_fs_io_cost_indelay_seconds_total",
		kind:  exposition.Counter,
		help:  "Cumulative IOCost delay in seconds",
		write: cost(func(c *counters.Cost) time.Duration { return c.InDelay }),
	},
	{
		name:  "container_blkio_device_usage_total",
		kind:  exposition.Counter,
		help:  "Blkio Device bytes usage",
		write: writeBlkio,
	},
}

// onDisks is a figure of each file system.
func onDisks(read func(*machine.Disk) uint64) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) {
		for _, d := range r.disks {
			w.Uint(read(d.Disk), r.Time, r.labels, d.label)
		}
	}
}

// diskIO is a figure of the block device of each file system that the group itself does not count.
func diskIO(read func(*machine.DiskIO) uint64) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) {
		for _, d := range r.disks {
			if d.IO != nil && !r.counts(d.Device) {
				w.Uint(read(d.IO), r.Time, r.labels, d.label)
			}
		}
	}
}

func diskTime(read func(*machine.DiskIO) time.Duration) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) {
		for _, d := range r.disks {
			if d.IO != nil {
				w.Seconds(read(d.IO), r.Time, r.labels, d.label)
			}
		}
	}
}

// onDevices is a figure of each device that the group has used.
func onDevices(read func(*counters.Device) uint64) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) {
		for i := range r.IO {
			d := &r.IO[i]
			w.Uint(read(d), r.Time, r.labels, r.device(d))
		}
	}
}

func cost(read func(*counters.Cost) time.Duration) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) {
		for i := range r.IO {
			if d := &r.IO[i]; d.Cost != nil {
				w.Seconds(read(d.Cost), r.Time, r.labels, r.device(d))
			}
		}
	}
}

func both(a, b func(*exposition.Writer, *row)) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) {
		a(w, r)
		b(w, r)
	}
}

func writeBlkio(w *exposition.Writer, r *row) {
	for i := range r.IO {
		d := &r.IO[i]
		pairs := []string{
			"device", r.snapshot.Device(d.Major, d.Minor),
			"major", strconv.FormatUint(uint64(d.Major), 10),
			"minor", strconv.FormatUint(uint64(d.Minor), 10),
			"operation", "Read",
		}

		w.Uint(d.Bytes[counters.Read], r.Time, r.labels, exposition.Pairs(pairs...))
		pairs[len(pairs)-1] = "Write"
		w.Uint(d.Bytes[counters.Write], r.Time, r.labels, exposition.Pairs(pairs...))
	}
}

package series

import (
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// baseLabels are the labels that all series have, in the order of their values. They are those of kubelet's
// own series (those of cAdvisor): id is the path of the control group, name the ID of the container or
// sandbox. A series of a pod has no container and no image.
var baseLabels = []string{"container", "id", "image", "name", "namespace", "pod"}

// needs is what a machine has to have for a family to have values.
type needs int

const (
	nothing needs = iota
	version2
	hugePages
)

// family is all series of one name.
type family struct {
	name, help string
	kind       runtimeapi.MetricType

	// labels are those after the base labels.
	labels []string
	needs  needs
}

func counter(name, help string, labels ...string) *family {
	return &family{
		name:   name,
		help:   help,
		kind:   runtimeapi.MetricType_COUNTER,
		labels: labels,
	}
}

func gauge(name, help string, labels ...string) *family {
	return &family{
		name:   name,
		help:   help,
		kind:   runtimeapi.MetricType_GAUGE,
		labels: labels,
	}
}

func (f *family) only(n needs) *family {
	f.needs = n
	return f
}

// descriptor returns the family in the terms of CRI.
func (f *family) descriptor() *runtimeapi.MetricDescriptor {
	return &runtimeapi.MetricDescriptor{
		Name:      f.name,
		Help:      f.help,
		LabelKeys: slices.Concat(baseLabels, f.labels),
	}
}

// Labels after the base labels.
const (
	cpuLabel       = "cpu"
	deviceLabel    = "device"
	interfaceLabel = "interface"
	pageSizeLabel  = "pagesize"
)

// Processor time.
var (
	cpuUsage = counter("container_cpu_usage_seconds_total",
		"Processor time that was used, in seconds", cpuLabel)
	cpuUser = counter("container_cpu_user_seconds_total",
		"Processor time that was used in user mode, in seconds")
	cpuSystem = counter("container_cpu_system_seconds_total",
		"Processor time that was used in the kernel, in seconds")
	cpuPeriods = counter("container_cpu_cfs_periods_total",
		"Periods of the CPU quota that have passed")
	cpuThrottled = counter("container_cpu_cfs_throttled_periods_total",
		"Periods in which processes were held back by the CPU quota")
	cpuThrottledTime = counter("container_cpu_cfs_throttled_seconds_total",
		"Time for which processes were held back by the CPU quota, in seconds")
	cpuBursts = counter("container_cpu_cfs_burst_periods_total",
		"Periods in which more than the CPU quota was used")
	cpuBurstTime = counter("container_cpu_cfs_burst_seconds_total",
		"Processor time that was used beyond the CPU quota, in seconds")
)

// Memory.
var (
	memoryCache = gauge("container_memory_cache",
		"Page cache, in bytes")
	memoryRSS = gauge("container_memory_rss",
		"Anonymous memory, in bytes")
	memoryKernel = gauge("container_memory_kernel_usage",
		"Memory of the kernel, in bytes")
	memoryMapped = gauge("container_memory_mapped_file",
		"Files that are mapped into memory, in bytes")
	memorySwap = gauge("container_memory_swap",
		"Swap that is used, in bytes")
	memoryHits = counter("container_memory_failcnt",
		"How often memory met its limit")
	memoryUsage = gauge("container_memory_usage_bytes",
		"Memory that is used, page cache included, in bytes")
	memoryPeak = gauge("container_memory_max_usage_bytes",
		"The most memory that was used at a time, in bytes")
	memoryWorkingSet = gauge("container_memory_working_set_bytes",
		"Memory that is used, without inactive page cache, in bytes")
	memoryActive = gauge("container_memory_total_active_file_bytes",
		"Page cache that was used of late, in bytes")
	memoryInactive = gauge("container_memory_total_inactive_file_bytes",
		"Page cache that was not used of late, in bytes")
	memoryFailures = counter("container_memory_failures_total",
		"Page faults, those below the group included (hierarchy) or not (container)", "failure_type", "scope")
	memoryHigh = counter("container_memory_events_high_total",
		"How often processes were held back at memory.high").only(version2)
	memoryMax = counter("container_memory_events_max_total",
		"How often memory met memory.max").only(version2)
	memoryDirty = gauge("container_memory_file_dirty_bytes",
		"Page cache that is not written to disk yet, in bytes")
	memoryWriteback = gauge("container_memory_file_writeback_bytes",
		"Page cache that is being written to disk, in bytes")
	memoryScanned = counter("container_memory_pgscan_total",
		"Pages that the kernel looked at to free memory").only(version2)
	memoryReclaimed = counter("container_memory_pgsteal_total",
		"Pages that the kernel freed").only(version2)
	memoryRefaultsFile = counter("container_memory_workingset_refault_file_total",
		"Pages of files that were read again after they had been freed")
	memoryRefaultsAnon = counter("container_memory_workingset_refault_anon_total",
		"Anonymous pages that were read again after they had been freed")
	oomEvents = counter("container_oom_events_total",
		"Processes that were killed because memory had met its limit")
)

// Pressure: waiting is some tasks, stalled all of them.
var (
	pressureCPUStalled = counter("container_pressure_cpu_stalled_seconds_total",
		"Time for which all tasks waited for a processor, in seconds").only(version2)
	pressureCPUWaiting = counter("container_pressure_cpu_waiting_seconds_total",
		"Time for which tasks waited for a processor, in seconds").only(version2)
	pressureMemoryStalled = counter("container_pressure_memory_stalled_seconds_total",
		"Time for which all tasks waited for memory, in seconds").only(version2)
	pressureMemoryWaiting = counter("container_pressure_memory_waiting_seconds_total",
		"Time for which tasks waited for memory, in seconds").only(version2)
	pressureIOStalled = counter("container_pressure_io_stalled_seconds_total",
		"Time for which all tasks waited for input or output, in seconds").only(version2)
	pressureIOWaiting = counter("container_pressure_io_waiting_seconds_total",
		"Time for which tasks waited for input or output, in seconds").only(version2)
)

// The file system of the writable layers, and block devices.
var (
	fsInodesFree = gauge("container_fs_inodes_free",
		"Inodes that are free on the file system", deviceLabel)
	fsInodes = gauge("container_fs_inodes_total",
		"Inodes of the file system", deviceLabel)
	fsLimit = gauge("container_fs_limit_bytes",
		"Size of the file system of the writable layer, in bytes", deviceLabel)
	fsUsage = gauge("container_fs_usage_bytes",
		"Size of the writable layer, in bytes", deviceLabel)
	fsReadBytes = counter("container_fs_reads_bytes_total",
		"Bytes that were read", deviceLabel)
	fsReads = counter("container_fs_reads_total",
		"Reads that were completed", deviceLabel)
	fsWriteBytes = counter("container_fs_writes_bytes_total",
		"Bytes that were written", deviceLabel)
	fsWrites = counter("container_fs_writes_total",
		"Writes that were completed", deviceLabel)
	blkioUsage = counter("container_blkio_device_usage_total",
		"Bytes of input and output of a block device", deviceLabel, "major", "minor", "operation")
)

// The network interfaces of a pod.
var (
	rxBytes = counter("container_network_receive_bytes_total",
		"Bytes that were received", interfaceLabel)
	rxPackets = counter("container_network_receive_packets_total",
		"Packets that were received", interfaceLabel)
	rxDropped = counter("container_network_receive_packets_dropped_total",
		"Packets that were dropped on receipt", interfaceLabel)
	rxErrors = counter("container_network_receive_errors_total",
		"Errors on receipt", interfaceLabel)
	txBytes = counter("container_network_transmit_bytes_total",
		"Bytes that were sent", interfaceLabel)
	txPackets = counter("container_network_transmit_packets_total",
		"Packets that were sent", interfaceLabel)
	txDropped = counter("container_network_transmit_packets_dropped_total",
		"Packets that were dropped on sending", interfaceLabel)
	txErrors = counter("container_network_transmit_errors_total",
		"Errors on sending", interfaceLabel)
)

// Processes.
var (
	processes = gauge("container_processes",
		"Processes that run")
	descriptors = gauge("container_file_descriptors",
		"File descriptors that processes have open")
	sockets = gauge("container_sockets",
		"Sockets that processes have open")
	threadsMax = gauge("container_threads_max",
		"How many threads there may be; 0 is no limit")
	threads = gauge("container_threads",
		"Threads that run")
	ulimits = gauge("container_ulimits_soft",
		"Soft limits of the first process", "ulimit")
)

// Huge pages.
var (
	hugeUsage = gauge("container_hugetlb_usage_bytes",
		"Huge pages that are used, in bytes", pageSizeLabel).only(hugePages)
	hugePeak = gauge("container_hugetlb_max_usage_bytes",
		"The most huge pages that were used at a time, in bytes", pageSizeLabel).only(hugePages)
	hugeHits = counter("container_hugetlb_failcnt",
		"How often huge pages met their limit", pageSizeLabel).only(hugePages)
)

// What the container was asked to be, and when.
var (
	lastSeen = gauge("container_last_seen",
		"When the runtime saw the container last, in seconds since 1970")
	creationTime = gauge("container_creation_time_seconds",
		"When the container was made, in seconds since 1970")
	startTime = gauge("container_start_time_seconds",
		"When the container was started, in seconds since 1970")
	specPeriod = gauge("container_spec_cpu_period",
		"Period of the CPU quota, in microseconds")
	specQuota = gauge("container_spec_cpu_quota",
		"Processor time for each period, in microseconds")
	specShares = gauge("container_spec_cpu_shares",
		"CPU shares")
	specMemory = gauge("container_spec_memory_limit_bytes",
		"Limit of memory, in bytes; 0 is none")
	specReservation = gauge("container_spec_memory_reservation_limit_bytes",
		"Memory that is reserved, in bytes; 0 is none")
	specSwap = gauge("container_spec_memory_swap_limit_bytes",
		"Limit of swap as the kernel has it, in bytes; 0 is none")
)

// families are in the order in which they are described.
var families = []*family{
	cpuUsage, cpuUser, cpuSystem, cpuPeriods, cpuThrottled, cpuThrottledTime, cpuBursts, cpuBurstTime,

	memoryCache, memoryRSS, memoryKernel, memoryMapped, memorySwap, memoryHits, memoryUsage, memoryPeak,
	memoryWorkingSet, memoryActive, memoryInactive, memoryFailures, memoryHigh, memoryMax, memoryDirty,
	memoryWriteback, memoryScanned, memoryReclaimed, memoryRefaultsFile, memoryRefaultsAnon, oomEvents,

	pressureCPUStalled, pressureCPUWaiting, pressureMemoryStalled, pressureMemoryWaiting,
	pressureIOStalled, pressureIOWaiting,

	fsInodesFree, fsInodes, fsLimit, fsUsage, fsReadBytes, fsReads, fsWriteBytes, fsWrites, blkioUsage,

	rxBytes, rxPackets, rxDropped, rxErrors, txBytes, txPackets, txDropped, txErrors,

	processes, descriptors, sockets, threadsMax, threads, ulimits,

	hugeUsage, hugePeak, hugeHits,

	lastSeen, creationTime, startTime,

	specPeriod, specQuota, specShares, specMemory, specReservation, specSwap,
}

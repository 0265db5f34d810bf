// Package usage reads what the processes of a control group use, from the files of cgroup v1 and v2. It knows
// one group at a time; where the groups are is internal/cgroup's.
//
// https://docs.kernel.org/admin-guide/cgroup-v1/ and https://docs.kernel.org/admin-guide/cgroup-v2.html
package usage

import "time"

// CrunGroup is the name of the group that crun makes below the scope of a container
// (run.oci.systemd.subgroup in crun(1)). It has the container's processes and all limits, those that systemd
// has no property for alone. Other OCI runtimes have no such group.
const CrunGroup = "container"

// Detail is how much of a group is read.
type Detail int

const (
	// Basic is what CRI has in its statistics: processor, memory, swap, processes and pressure.
	Basic Detail = iota
	// Full is all that Reading has.
	Full
)

// Reading is one reading of a group's counters, those of the groups below it included. Amounts of memory are
// in bytes. What the kernel does not count, or what was not asked for, is 0.
type Reading struct {
	Time   time.Time
	Detail Detail

	// CPU is processor time since the group was made, User and System its parts, which are Full on v1.
	CPU, User, System time.Duration

	// Memory includes the page cache. WorkingSet is Memory less inactive page cache: what Kubernetes evicts
	// by. RSS is anonymous memory.
	Memory     uint64
	WorkingSet uint64
	RSS        uint64

	// MemoryLimit is 0 where there is none.
	MemoryLimit     uint64
	PageFaults      uint64
	MajorPageFaults uint64

	Cache        uint64
	MappedFile   uint64
	ActiveFile   uint64
	InactiveFile uint64
	Dirty        uint64
	Writeback    uint64
	RefaultsFile uint64
	RefaultsAnon uint64

	Swap uint64
	// SwapLimit is how much may be swapped out; nil is no limit.
	SwapLimit *uint64

	// PIDs is the number of threads.
	PIDs uint64

	// Stalls are of v2, and nil where the kernel does not count them.
	Stalls *Stalls

	// What follows is read for Full alone.

	Throttling Throttling

	// MemoryPeak is the most that was ever used; Kernel is memory of the kernel's.
	MemoryPeak uint64
	Kernel     uint64

	// LimitHits is how often an allocation met MemoryLimit, OOMKills how many processes were killed for it.
	LimitHits uint64
	OOMKills  uint64

	// OwnPageFaults and OwnMajorPageFaults are without those of the groups below; on v2 with them.
	OwnPageFaults      uint64
	OwnMajorPageFaults uint64

	// V2 has what cgroup v1 does not count; nil there.
	V2 *UnifiedMemory

	// PIDLimit is 0 where there is none.
	PIDLimit uint64

	// IO is of block devices, in the kernel's order.
	IO []Device

	// HugePages are in the order of the reader's page sizes.
	HugePages []HugePages
}

// UnifiedMemory are counters of memory that only cgroup v2 has.
type UnifiedMemory struct {
	// HighEvents is how often processes were throttled at memory.high.
	HighEvents uint64

	// PagesScanned and PagesReclaimed count pages.
	PagesScanned, PagesReclaimed uint64
}

// Throttling is what the CPU quota does to a group.
type Throttling struct {
	Periods, Throttled uint64
	ThrottledTime      time.Duration

	// Bursts are periods in which more than the quota was used.
	Bursts    uint64
	BurstTime time.Duration
}

// Stalls is the pressure stall information of a group, https://docs.kernel.org/accounting/psi.html.
type Stalls struct{ CPU, Memory, IO Pressure }

// Pressure is how long tasks waited for one resource: Some is at least one of them, Full all of them at once.
type Pressure struct{ Some, Full Stall }

// Stall is time lost. The averages are percents over the last 10, 60 and 300 seconds.
type Stall struct {
	Total                time.Duration
	Avg10, Avg60, Avg300 float64
}

// Operation is a kind of input or output.
type Operation int

// The operations that the kernel counts. Total, Sync and Async are of v1.
const (
	Read Operation = iota
	Write
	Sync
	Async
	Discard
	Total
	operations
)

var operationNames = [operations]string{"Read", "Write", "Sync", "Async", "Discard", "Total"}

// String returns the kernel's name of the operation.
func (o Operation) String() string { return operationNames[o] }

// Device is the input and output of one block device.
type Device struct {
	Major, Minor uint32

	// Bytes and Requests are by Operation.
	Bytes, Requests [operations]uint64

	// Cost is nil without the controller io.cost, which only v2 has.
	Cost *Cost
}

// Cost is the time that the controller io.cost has charged to a group for a device.
type Cost struct{ Usage, Wait, InDebt, InDelay time.Duration }

// HugePages is the use of huge pages of one size, in bytes. Peak and LimitHits are of v1.
type HugePages struct {
	// Size is the kernel's name of it ("2MB").
	Size string

	Usage, Peak, LimitHits uint64
}

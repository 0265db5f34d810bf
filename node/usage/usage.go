// Package usage reads what the control groups of the node use: those of pods and their containers, those
// above them, those of the daemons, and the root, which stands for the whole machine. The figures are those
// of cAdvisor in kubelet, read from the same files, so that they do not depend on what the container runtime
// measures. What runs is asked of the runtime, by two lists.
//
// One pass over the groups serves all who ask within MaxAge. Nothing is read when nobody asks.
//
// https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/ and
// https://docs.kernel.org/accounting/psi.html
package usage

import (
	"time"

	"github.com/trivet-node/trivet/node/runtime"
)

// Depth is how much of each group is read.
type Depth int

const (
	// CPUAndMemory are the figures that metrics-server reads.
	CPUAndMemory Depth = iota
	// Everything adds limits, disks, networks, processes and pressure.
	Everything
)

// Snapshot is one pass over the groups. It is shared and must not be changed.
type Snapshot struct {
	Depth Depth
	// Time is when the pass ended.
	Time time.Time
	// Boot is when the machine started.
	Boot time.Time
	// Node is the root group: the whole machine.
	Node *Group
	// Interfaces are those of the machine.
	Interfaces []Interface
	// Tiers are the groups above those of pods: kubepods and its tiers of quality of service.
	Tiers []*Group
	// Daemons are the groups of the node's daemons, by kubelet's name of the system container.
	Daemons map[string]*Group
	// Pods are those with a ready sandbox, sorted by namespace, name and UID.
	Pods []Pod
	// Err is why there are no pods: the runtime did not answer.
	Err error
	// Pressure reports whether the kernel measures pressure.
	Pressure bool
}

// Pod is what one pod uses.
type Pod struct {
	runtime.Pod
	// SandboxID is the runtime's ID of the sandbox.
	SandboxID string
	Created   time.Time
	// Group is the pod's own group, nil if it is gone.
	Group *Group
	// Sandbox is the group of the sandbox's process, nil with runtimes that have none.
	Sandbox *Group
	// Interfaces are those of the pod's network namespace.
	Interfaces []Interface
	// Containers are those that run, sorted by name.
	Containers []Container
}

// Container is what one container uses.
type Container struct {
	ID, Name, Image string
	Created         time.Time
	// Group is nil if the container ended meanwhile.
	Group *Group
}

// Group is one reading of a group, its children included.
type Group struct {
	// Path is the group's path from the root of the hierarchies; "/" is the root.
	Path string
	// Time is when it was read.
	Time   time.Time
	CPU    CPU
	Memory Memory

	// What follows is read with Everything only.

	Devices []Device
	// Tasks are processes and threads. TaskLimit is 0 for none.
	Tasks, TaskLimit uint64
	// Processes is nil where processes are not looked at.
	Processes *Processes
	// Pressure is nil if the kernel does not measure it.
	Pressure *Pressure
}

// CPU is the use of processors since the group was made.
type CPU struct {
	Usage, User, System time.Duration
	// NanoCores is the mean use since the pass before this one, or since the group was made.
	NanoCores uint64

	// Shares is the weight as cgroup v1 has it.
	Shares uint64
	// Quota is what may be used of each Period, in microseconds; 0 is no limit.
	Quota, Period uint64

	Periods, ThrottledPeriods, BurstPeriods uint64
	Throttled, Burst                        time.Duration
}

// Memory is the use of memory, in bytes if not said otherwise.
type Memory struct {
	// Usage is all that is charged to the group, page cache included.
	Usage uint64
	// WorkingSet is Usage without inactive page cache.
	WorkingSet uint64
	// RSS is anonymous memory.
	RSS, Cache, MappedFile, Kernel, Swap uint64
	// Peak is the most that Usage has been.
	Peak                     uint64
	ActiveFile, InactiveFile uint64
	Dirty, Writeback         uint64

	// Faults of the group and all below it, and of the group alone where the kernel tells them apart.
	Faults, MajorFaults, OwnFaults, OwnMajorFaults uint64

	// Scanned and Stolen are pages that reclaim has looked at and taken; the refaulted had to be read again.
	Scanned, Stolen, RefaultedFile, RefaultedAnon uint64

	// LimitHits is how often an allocation met the limit, HighEvents how often it met memory.high.
	LimitHits, HighEvents uint64
	// OOMKills is how many processes the kernel has killed for memory.
	OOMKills uint64

	// Limit and Reservation are 0 for none.
	Limit, Reservation uint64
	// SwapLimit means something only with SwapLimited: the limit may be 0.
	SwapLimit   uint64
	SwapLimited bool
}

// Available returns how much more the group may use, false without a limit.
func (m *Memory) Available() (uint64, bool) {
	return m.Limit - min(m.Limit, m.WorkingSet), m.Limit > 0
}

// Device is what a group did on a block device.
type Device struct {
	Major, Minor uint64
	// Name is such as /dev/sda, or MAJOR:MINOR if it is not known.
	Name string

	ReadBytes, WriteBytes, Reads, Writes uint64

	// Costs of the controller io.cost, nil without it.
	Cost *Cost
}

// Cost is what the controller io.cost has charged for a device.
type Cost struct{ Usage, Wait, InDebt, InDelay time.Duration }

// Processes are what the processes of a group have open.
type Processes struct {
	Count uint64
	// First is the ID of the first one, empty if there is none.
	First string
	// FDs are open file descriptors and Sockets those that are sockets, if Counted. They are not with more
	// than can be counted in the time of a scrape.
	FDs, Sockets uint64
	Counted      bool
	// MaxOpenFiles is the soft limit of the first process; -1 is none.
	MaxOpenFiles int64
}

// Pressure is how long tasks waited for a resource.
type Pressure struct{ CPU, Memory, IO Stalls }

// Stalls are when some task waited for a resource, and when all did.
type Stalls struct{ Some, Full Stall }

// Stall is the total time and the shares of time, in percent, of the last 10, 60 and 300 seconds.
type Stall struct {
	Total                time.Duration
	Avg10, Avg60, Avg300 float64
}

// Interface is the traffic of a network interface.
type Interface struct {
	Name     string
	Received Traffic
	Sent     Traffic
}

// Traffic counts one direction.
type Traffic struct{ Bytes, Packets, Errors, Dropped uint64 }

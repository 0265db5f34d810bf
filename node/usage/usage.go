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

	counters "github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/internal/netdev"
	"github.com/trivet-node/trivet/internal/procfs"
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

	// devices are the names of block devices, by number.
	devices map[string]string
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

	// Reading has what the kernel counts.
	counters.Reading

	// NanoCores is the mean use of processors since the pass before this one, or since the group was made.
	NanoCores uint64

	// What follows is read with Everything only.

	Limits Limits
	// Processes is nil where processes are not looked at.
	Processes *Processes
}

// Limits are what a group may use beside the limits in its Reading.
type Limits struct {
	// Shares is the weight as cgroup v1 has it.
	Shares uint64
	// Quota is how long processors may be used in each Period, in microseconds; 0 is no limit.
	Quota, Period uint64
	// Reservation is the memory that is protected, in bytes.
	Reservation uint64
}

// Available returns how much more memory the group may use, false without a limit.
func (g *Group) Available() (uint64, bool) {
	return g.MemoryLimit - min(g.MemoryLimit, g.WorkingSet), g.MemoryLimit > 0
}

// Processes are those of a group and of the groups below it.
type Processes struct {
	Count uint64
	// First is the ID of the first one, 0 if there is none.
	First int
	// Open is what they have open.
	Open procfs.Open
	// MaxOpenFiles is the soft limit of the first one; nil is not known.
	MaxOpenFiles *uint64
}

// Interface is the traffic of a network interface.
type Interface = netdev.Interface

// Traffic counts one direction.
type Traffic = netdev.Traffic

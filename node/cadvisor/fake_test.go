package cadvisor

import (
	"time"

	counters "github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/usage"
)

var (
	at   = time.UnixMilli(1_800_000_100_500)
	born = time.Unix(1_800_000_000, 0)
)

// group is a group that has each kind of figure.
func group(path string) *usage.Group {
	device := counters.Device{Major: 254, Cost: &counters.Cost{Usage: time.Second}}
	device.Bytes[counters.Read] = 1024
	device.Requests[counters.Write] = 4

	reading := counters.Reading{
		Time:       at,
		CPU:        3 * time.Second,
		User:       2 * time.Second,
		System:     time.Second,
		Memory:     4000,
		WorkingSet: 3500,
		RSS:        1000,
		PIDs:       5,
		IO:         []counters.Device{device},
		Stalls:     &counters.Stalls{IO: counters.Pressure{Some: counters.Stall{Total: time.Millisecond}}},
	}

	processes := &usage.Processes{
		Count:        2,
		First:        7,
		FDs:          9,
		Sockets:      1,
		Counted:      true,
		MaxOpenFiles: new(int64(1024)),
	}

	return &usage.Group{
		Path:      path,
		Reading:   reading,
		Limits:    usage.Limits{Shares: 512, Quota: 50000, Period: 100000},
		Processes: processes,
	}
}

var eth0 = []usage.Interface{{Name: "eth0", Received: usage.Traffic{Bytes: 10}}}

// snapshot is a machine with a pod whose sandbox has a group, and one whose sandbox has none.
func snapshot() *usage.Snapshot {
	unlimited := group("/kubepods/pod2/app2")
	unlimited.Limits.Quota = 0
	unlimited.Processes.Counted = false

	return &usage.Snapshot{
		Depth:      usage.Everything,
		Time:       at,
		Boot:       born,
		Node:       group("/"),
		Interfaces: eth0,
		Tiers:      []*usage.Group{group("/kubepods")},
		Daemons: map[string]*usage.Group{
			"kubelet": group("/system.slice/both.service"),
			"runtime": group("/system.slice/both.service"),
		},
		Pods: []usage.Pod{
			{
				Pod:        runtime.Pod{UID: "1", Namespace: "n", Name: "one"},
				SandboxID:  "box1",
				Created:    born,
				Group:      group("/kubepods/pod1"),
				Sandbox:    group("/kubepods/pod1/box1"),
				Interfaces: eth0,
				Containers: []usage.Container{
					{
						ID:      "app1",
						Name:    "app",
						Image:   "img",
						Created: born,
						Group:   group("/kubepods/pod1/app1"),
					},
					{ID: "gone", Name: "ended"},
				},
			},
			{
				Pod:        runtime.Pod{UID: "2", Namespace: "n", Name: "two"},
				SandboxID:  "box2",
				Group:      group("/kubepods/pod2"),
				Interfaces: eth0,
				Containers: []usage.Container{{ID: "app2", Name: "app", Image: "img", Group: unlimited}},
			},
			{Pod: runtime.Pod{UID: "3", Namespace: "n", Name: "young"}},
		},
	}
}

func node() *Node {
	return &Node{
		KernelVersion: "6.18",
		OSImage:       "Debian",
		MachineID:     "m",
		SystemUUID:    "s",
		BootID:        "b",
		Topology:      machine.Topology{CPUs: 4, Cores: 2, Sockets: 1},
		DIMMs:         []machine.DIMMs{{Type: "DDR4", Count: 2, Bytes: 1 << 34}},
		MemoryBytes:   1 << 34,
		Disks: []machine.Disk{
			{
				Device:     "/dev/vda1",
				Size:       1000,
				Used:       400,
				Inodes:     50,
				InodesFree: 40,
				IO:         &machine.DiskIO{Reads: 5},
			},
			{Device: "/run", Size: 10, Used: 1},
		},
	}
}

package usage

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/trivet-node/trivet/node/runtime"
)

// take returns a snapshot of everything, in which times of reading are zero.
func take(t *testing.T, m *Meter) *Snapshot {
	t.Helper()
	s, err := m.Take(t.Context(), Everything)
	if err != nil || s.Err != nil {
		t.Fatal(err, s.Err)
	}
	return s
}

// without are figures that depend on the time of the test.
var without = cmp.Options{
	cmpopts.IgnoreFields(Group{}, "Time"),
	cmpopts.IgnoreFields(CPU{}, "NanoCores"),
}

// app is the container in the archives, as far as both versions of cgroups have the same files.
func app() Group {
	cpu := CPU{
		Usage:            2 * time.Second,
		User:             1500 * time.Millisecond,
		System:           500 * time.Millisecond,
		Period:           100000,
		Periods:          100,
		ThrottledPeriods: 20,
		Throttled:        3 * time.Millisecond,
		BurstPeriods:     2,
		Burst:            40 * time.Microsecond,
	}

	memory := Memory{
		Usage:         4000,
		WorkingSet:    3500,
		RSS:           1000,
		Cache:         2000,
		MappedFile:    40,
		Kernel:        300,
		Swap:          100,
		Peak:          8000,
		ActiveFile:    700,
		InactiveFile:  500,
		Dirty:         5,
		Writeback:     6,
		Faults:        11,
		MajorFaults:   12,
		RefaultedFile: 16,
		RefaultedAnon: 15,
		LimitHits:     22,
		OOMKills:      2,
		Limit:         9000,
		SwapLimited:   true,
	}

	return Group{CPU: cpu, Memory: memory, Tasks: 5}
}

func TestContainerOfTheUnifiedHierarchy(t *testing.T) {
	want := app()
	want.Path = "/kubepods/burstable/podu/cri-containerd-app1.scope"
	want.CPU.Quota = 50000
	want.CPU.Shares = 2597
	want.Memory.OwnFaults = 11
	want.Memory.OwnMajorFaults = 12
	want.Memory.Scanned = 13
	want.Memory.Stolen = 14
	want.Memory.HighEvents = 21
	want.Pressure = &Pressure{
		CPU: Stalls{
			Some: Stall{Total: time.Millisecond, Avg10: 0.5},
			Full: Stall{Total: 500 * time.Microsecond},
		},
		IO: Stalls{Some: Stall{Total: 30 * time.Microsecond}, Full: Stall{Total: 20 * time.Microsecond}},
	}

	want.Devices = []Device{
		{
			Major:      254,
			Name:       "254:0",
			ReadBytes:  1024,
			WriteBytes: 2048,
			Reads:      3,
			Writes:     4,
			Cost: &Cost{
				Usage:   50 * time.Microsecond,
				Wait:    60 * time.Microsecond,
				InDebt:  70 * time.Microsecond,
				InDelay: 80 * time.Microsecond,
			},
		},
		{Major: 8, Minor: 16, Name: "8:16", ReadBytes: 1, WriteBytes: 2, Reads: 3, Writes: 4},
	}

	// The processes are in the group that crun makes in the scope. Those of the archive do not exist.
	want.Processes = &Processes{
		Count:        2,
		First:        "4711",
		Counted:      true,
		MaxOpenFiles: -1,
	}

	s := take(t, onV2(t, &fakeRuntime{}))
	if len(s.Pods) != 1 || len(s.Pods[0].Containers) != 1 {
		t.Fatalf("pods %+v", s.Pods)
	}
	if diff := cmp.Diff(&want, s.Pods[0].Containers[0].Group, without); diff != "" {
		t.Error(diff)
	}
}

func TestPodAndMachineOfTheUnifiedHierarchy(t *testing.T) {
	s := take(t, onV2(t, &fakeRuntime{}))
	pod := s.Pods[0]
	if pod.Pod != (runtime.Pod{UID: "u", Namespace: "shop", Name: "web"}) || pod.SandboxID != "box" {
		t.Errorf("%+v", pod)
	}

	eth0 := []Interface{{
		Name: "eth0",
		Received: Traffic{
			Bytes:   1000,
			Packets: 10,
			Errors:  1,
			Dropped: 2,
		},
		Sent: Traffic{
			Bytes:   2000,
			Packets: 20,
			Errors:  3,
			Dropped: 4,
		},
	}}
	if diff := cmp.Diff(eth0, pod.Interfaces); diff != "" {
		t.Error(diff)
	}
	if available, limited := pod.Group.Memory.Available(); available != 6500 || !limited {
		t.Errorf("available %d, %v", available, limited)
	}
	if pod.Sandbox != nil {
		t.Error("a sandbox without a group has figures")
	}

	// The root has no file with its usage: it is what v1 counts.
	root := s.Node.Memory
	if root.Usage != 1000000 || root.WorkingSet != 700000 || root.Limit != 8000000<<10 ||
		root.Swap != 500000<<10 || root.SwapLimit != 2000000<<10 {
		t.Errorf("%+v", root)
	}

	if len(s.Interfaces) != 1 || s.Interfaces[0].Name != "ens3" || s.Interfaces[0].Sent.Dropped != 4 {
		t.Errorf("interfaces of the machine %+v", s.Interfaces)
	}
	if !s.Pressure || s.Node.Pressure.CPU.Some.Avg60 != 0.8 || s.Boot.Unix() != 1795882087 {
		t.Errorf("pressure %+v, boot %v", s.Node.Pressure, s.Boot)
	}

	// One tier is in the archive.
	if len(s.Tiers) != 1 || s.Tiers[0].Path != "/kubepods" || s.Daemons["kubelet"] == nil {
		t.Errorf("tiers %+v, daemons %+v", s.Tiers, s.Daemons)
	}
}

func TestContainerOfVersion1(t *testing.T) {
	root := recorded(t, "v1.txt")
	m := New(Config{
		Groups:  hierarchies{root: root},
		Tree:    &tree{group: "/kubepods/podu"},
		Runtime: &fakeRuntime{},
		Daemons: func() map[string]string { return nil },
		Root:    root,
	})

	want := app()
	want.Path = "/kubepods/podu/app1"
	want.CPU.Shares = 512
	want.Memory.OwnFaults = 1
	want.Memory.OwnMajorFaults = 2
	want.Memory.SwapLimit = 500
	want.Devices = []Device{{
		Major:      254,
		Name:       "254:0",
		ReadBytes:  1024,
		WriteBytes: 2048,
		Reads:      3,
		Writes:     4,
	}}

	want.Processes = &Processes{
		Count:        1,
		First:        "4711",
		Counted:      true,
		MaxOpenFiles: -1,
	}

	s := take(t, m)
	if diff := cmp.Diff(&want, s.Pods[0].Containers[0].Group, without); diff != "" {
		t.Error(diff)
	}
	if n := s.Node.Memory; n.WorkingSet != 700000 || n.Limit != 8000000<<10 {
		t.Errorf("%+v", n)
	}
}

// What is open is counted in /proc/PID/fd, whose links say what it is.
func TestOpenFilesAndSocketsAreCounted(t *testing.T) {
	root := recorded(t, "v2.txt")
	r := &reader{groups: hierarchies{root: root, v2: true}, v2: true, root: root}
	for name, to := range map[string]string{
		"4711/fd/0": "/dev/null",
		"4711/fd/1": "socket:[123]",
		"4712/fd/0": "pipe:[5]",
		"4712/fd/3": "socket:[124]",
	} {
		symlink(t, to, root+"/proc/"+name)
	}

	got := r.processes("/kubepods/burstable/podu/cri-containerd-app1.scope")
	if got.FDs != 4 || got.Sockets != 2 || !got.Counted {
		t.Errorf("%+v", got)
	}
	if limit := maxOpenFiles("self"); limit != -1 {
		t.Errorf("limit of no process: %d", limit)
	}
}

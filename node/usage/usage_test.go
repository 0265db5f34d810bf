package usage

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	counters "github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/node/machine"
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

// Files of groups are read by internal/cgroup/usage, which is tested there. Here is what this package adds.
func TestContainerOfTheUnifiedHierarchy(t *testing.T) {
	s := take(t, onV2(t, &fakeRuntime{}))
	if len(s.Pods) != 1 || len(s.Pods[0].Containers) != 1 {
		t.Fatalf("pods %+v", s.Pods)
	}

	app := s.Pods[0].Containers[0].Group
	if app.Path != "/kubepods/burstable/podu/cri-containerd-app1.scope" || app.CPU != 2*time.Second ||
		app.WorkingSet != 3500 || app.OOMKills != 2 || app.Stalls == nil {
		t.Errorf("%+v", app)
	}

	if want := (Limits{Shares: 2597, Quota: 50000, Period: 100000}); app.Limits != want {
		t.Errorf("%+v, want %+v", app.Limits, want)
	}
	if cost := app.IO[0].Cost; cost == nil || cost.Usage != 50*time.Microsecond || app.IO[1].Cost != nil {
		t.Errorf("devices %+v", app.IO)
	}

	// The processes are in the group that crun makes in the scope. Those of the archive do not exist.
	want := &Processes{Count: 2, First: 4711, Counted: true}
	if diff := cmp.Diff(want, app.Processes); diff != "" {
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
	if available, limited := pod.Group.Available(); available != 6500 || !limited {
		t.Errorf("available %d, %v", available, limited)
	}
	if pod.Sandbox != nil {
		t.Error("a sandbox without a group has figures")
	}

	// The root has no file with its usage: it is what v1 counts.
	root := s.Node
	if root.Memory != 1000000 || root.WorkingSet != 700000 || root.MemoryLimit != 8000000<<10 ||
		root.Swap != 500000<<10 || *root.SwapLimit != 2000000<<10 {
		t.Errorf("%+v", root)
	}

	if len(s.Interfaces) != 1 || s.Interfaces[0].Name != "ens3" || s.Interfaces[0].Sent.Dropped != 4 {
		t.Errorf("interfaces of the machine %+v", s.Interfaces)
	}
	if s.Boot.Unix() != 1795882087 {
		t.Errorf("boot %v", s.Boot)
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

	s := take(t, m)
	app := s.Pods[0].Containers[0].Group
	if app.Path != "/kubepods/podu/app1" || app.WorkingSet != 3500 || app.Processes.First != 4711 {
		t.Errorf("%+v", app)
	}
	if want := (Limits{Shares: 512, Period: 100000}); app.Limits != want {
		t.Errorf("%+v, want %+v", app.Limits, want)
	}
	if n := s.Node; n.WorkingSet != 700000 || n.MemoryLimit != 8000000<<10 {
		t.Errorf("%+v", n)
	}
}

// What is open is counted in /proc/PID/fd, whose links say what it is.
func TestOpenFilesAndSocketsAreCounted(t *testing.T) {
	root := t.TempDir()
	r := &reader{machine: machine.Machine{Root: root}}
	for name, to := range map[string]string{
		"4711/fd/0": "/dev/null",
		"4711/fd/1": "socket:[123]",
		"4712/fd/0": "pipe:[5]",
		"4712/fd/3": "socket:[124]",
	} {
		symlink(t, to, root+"/proc/"+name)
	}

	const limits = "Max open files            1024                 1048576              files     \n"
	write(t, root+"/proc/4711/limits", "Limit Soft Hard Units\n"+limits)

	got := r.processes(counters.Processes{Count: 3, PIDs: []int{4711, 4712, 4713}})
	if got.FDs != 4 || got.Sockets != 2 || !got.Counted || got.First != 4711 ||
		*got.MaxOpenFiles != 1024 {
		t.Errorf("%+v", got)
	}

	// More than can be looked at.
	got = r.processes(counters.Processes{Count: maxProcesses + 1, PIDs: []int{4711}})
	if got.FDs != 0 || got.Counted || got.Count != maxProcesses+1 {
		t.Errorf("%+v", got)
	}
}

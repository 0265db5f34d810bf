package usage

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/runtime"
)

// With the kernel's own files, whichever version it has.
func TestProcessInAGroupIsSeen(t *testing.T) {
	testenv.Root(t)
	host, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}

	root := "/" + filepath.Base(testenv.ShortDir(t))
	t.Cleanup(func() {
		if err := host.Remove(context.WithoutCancel(t.Context()), root); err != nil {
			t.Error(err)
		}
	})
	if err := host.Create(root + "/podu/app"); err != nil {
		t.Fatal(err)
	}
	if err := host.Apply(root+"/podu/app", cgroup.Limits{CPUQuota: 50_000, Memory: 64 << 20}); err != nil {
		t.Fatal(err)
	}

	pid := cat(t)
	if err := host.Add(root+"/podu/app", pid); err != nil {
		t.Fatal(err)
	}

	pod := runtime.Pod{UID: "u", Namespace: "n", Name: "p"}
	f := &fullNode{
		root:       root,
		sandboxes:  []runtime.Sandbox{{ID: "box", Pod: pod}},
		containers: []runtime.Container{{ID: "app", SandboxID: "box", Pod: pod, Name: "c"}},
	}

	m := New(Config{
		Groups:  host,
		V2:      host.V2,
		Tree:    f,
		Runtime: f,
		Daemons: (&Daemons{Runtime: "/none"}).Groups,
	})

	s := take(t, m)
	app := s.Pods[0].Containers[0].Group
	if app == nil || app.MemoryLimit != 64<<20 || app.Limits.Quota != 50_000 || app.Limits.Period == 0 {
		t.Fatalf("%+v", app)
	}

	got := app.Processes
	if got.Count != 1 || got.First != pid || got.FDs < 3 || !got.Counted ||
		got.MaxOpenFiles == nil {
		t.Errorf("%+v", got)
	}

	// It is in the network namespace of the test.
	if diff := cmp.Diff(s.Interfaces, s.Pods[0].Interfaces, cmp.Transformer("name", nameOf)); diff != "" {
		t.Error(diff)
	}
	if n := s.Node; n == nil || n.CPU == 0 || n.WorkingSet == 0 || n.MemoryLimit < n.WorkingSet {
		t.Errorf("machine %+v", n)
	}
}

// nameOf leaves out counters, which go on.
func nameOf(i Interface) string { return i.Name }

// cat is a process that waits for input until the test ends, and has a pipe and two files open.
func cat(t *testing.T) (pid int) {
	t.Helper()
	cmd := exec.Command("cat")
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		input.Close()
		_ = cmd.Wait()
	})

	return cmd.Process.Pid
}

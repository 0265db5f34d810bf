package usage

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/internal/cgroup"
	counters "github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/runtime"
)

// container is a group of the kernel's own, whichever version it has, and a meter of it.
type container struct {
	host  *cgroup.Host
	group string
	meter *Meter
}

func newContainer(t *testing.T) container {
	t.Helper()
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

	pod := runtime.Pod{UID: "u", Namespace: "n", Name: "p"}
	f := &fullNode{
		root:       root,
		sandboxes:  []runtime.Sandbox{{ID: "box", Pod: pod}},
		containers: []runtime.Container{{ID: "app", SandboxID: "box", Pod: pod, Name: "c"}},
	}
	return container{
		host:  host,
		group: root + "/podu/app",
		meter: New(Config{
			Groups:  host,
			V2:      host.V2,
			Tree:    f,
			Runtime: f,
			Daemons: (&Daemons{Runtime: "/none"}).Groups,
		}),
	}
}

func TestProcessInAGroupIsSeen(t *testing.T) {
	c := newContainer(t)
	if err := c.host.Apply(c.group, cgroup.Limits{CPUQuota: 50_000, Memory: 64 << 20}); err != nil {
		t.Fatal(err)
	}

	pid := cat(t)
	if err := c.host.Add(c.group, pid); err != nil {
		t.Fatal(err)
	}

	s := take(t, c.meter)
	app := s.Pods[0].Containers[0].Group
	if app == nil || app.MemoryLimit != 64<<20 || app.Limits.Quota != 50_000 || app.Limits.Period == 0 {
		t.Fatalf("%+v", app)
	}

	got := app.Processes
	if got.Count != 1 || got.First != pid || got.Open.Descriptors < 3 ||
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

// TestWhatAGroupWritesToADiskIsCounted is of io.stat. The blkio controller of v1 counts only where there is a
// limit, since Linux 6.10.
func TestWhatAGroupWritesToADiskIsCounted(t *testing.T) {
	c := newContainer(t)
	if !c.host.V2 {
		t.Skip("cgroup v1 does not have what is tested (make vm)")
	}

	const size = 4 << 20
	const script = `read go && exec dd if=/dev/zero of="$1" bs=1M count=4 oflag=direct 2>&1`
	writer := exec.Command("sh", "-c", script, "sh", filepath.Join(onDisk(t), "written"))
	input, err := writer.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}

	var said strings.Builder
	writer.Stdout = &said
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.host.Add(c.group, writer.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := input.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	if err := writer.Wait(); err != nil {
		t.Fatalf("dd: %v: %s", err, said.String())
	}

	var written, requests uint64
	app := take(t, c.meter).Pods[0].Containers[0].Group
	for _, d := range app.IO {
		written = max(written, d.Bytes[counters.Write])
		requests = max(requests, d.Requests[counters.Write])
	}
	if written < size || requests == 0 {
		t.Errorf("%d bytes in %d requests to one device, want %d: %+v", written, requests, size, app.IO)
	}
}

// onDisk is a directory that is not in memory, as that of temporary files may be.
func onDisk(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "trv") //nolint:usetesting // t.TempDir may be in memory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
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

package stats

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/record"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/stats/meter"
	"github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/internal/cgroup/usage/usagetest"
	"github.com/trivet-node/trivet/internal/diskusage"
)

// node has one sandbox, and containers of which some cannot be read.
type node struct{}

func (node) Get(id string) (sandbox.Record, error) {
	if id != "s" {
		return sandbox.Record{}, record.ErrNotFound
	}
	return sandbox.Record{ID: "s"}, nil
}

func (node) Netns(sandbox.Record) string { return "" }

func (node) Dir() string { return "/var/lib/trivet/cri/rootfs" }

type layers struct{ node }

func (layers) Keep(func(string) bool) {}

func (layers) Measure(id string, _ int64) diskusage.Figure {
	if id == "new-layer" {
		return diskusage.Figure{}
	}
	return diskusage.Figure{Usage: diskusage.Usage{Bytes: 7, Inodes: 2}, Time: time.Unix(1, 0)}
}

// reader reads a node with cgroup v2, whose groups all show the same.
func reader(t *testing.T) *Reader {
	t.Helper()
	host := usagetest.New(t, true)
	host.Gone["/trivet/ending"] = true
	host.Broken["/trivet/broken-group"] = true
	return New(Config{
		Sandboxes: node{},
		Cgroups:   host,
		Driver:    cgroupdriver.Driver{},
		Layers:    layers{},
		Log:       slog.New(slog.DiscardHandler),
		V2:        true,
	})
}

func running(id string) container.Record {
	return container.Record{ID: id, Sandbox: "s", State: life.Running}
}

func TestContainerThatCannotBeReadHidesNoOther(t *testing.T) {
	all := []container.Record{running("a"), running("new-layer"), running("broken-group"), running("b")}
	got := reader(t).Containers(all)
	if len(got) != 3 || got[0].Attributes.Id != "a" || got[2].Attributes.Id != "b" {
		t.Errorf("stats %v", got)
	}
	if got[1].WritableLayer != nil || got[1].Memory == nil {
		t.Errorf("stats of one whose layer is not known yet: %v", got[1])
	}

	written, dir := reader(t).Written(all)
	if written != (diskusage.Usage{Bytes: 14, Inodes: 4}) || dir != layers.Dir(layers{}) {
		t.Errorf("%+v in all, in %s", written, dir)
	}
}

func TestOnlyAContainerThatRunsUsesProcessorAndMemory(t *testing.T) {
	exited := container.Record{ID: "exited", Sandbox: "s", State: life.Exited}
	noSandbox := container.Record{ID: "lost", Sandbox: "gone", State: life.Running}
	for _, c := range []struct {
		container container.Record
		runs      bool
	}{
		{running("a"), true},
		{running("ending"), false},
		{exited, false},
		{noSandbox, false},
	} {
		st, err := reader(t).Container(c.container)
		if err != nil {
			t.Fatal(err)
		}

		if (st.Memory != nil) != c.runs || (st.Cpu != nil) != c.runs ||
			st.WritableLayer.UsedBytes.Value != 7 {
			t.Errorf("%s: %v", c.container.ID, st)
		}

		if c.runs && st.Memory.AvailableBytes.Value+st.Memory.WorkingSetBytes.Value != 64<<20 {
			t.Errorf("%s: %v", c.container.ID, st)
		}
	}
}

func TestMemoryAndSwapWithoutALimitHaveNoneAvailable(t *testing.T) {
	unlimited := meter.Sample{Reading: usage.Reading{WorkingSet: 30, Swap: 5}}
	if m := memoryUsage(unlimited); m.AvailableBytes != nil {
		t.Errorf("memory that is available: %v", m.AvailableBytes)
	}
	if s := swapUsage(unlimited); s.SwapAvailableBytes != nil || s.SwapUsageBytes.Value != 5 {
		t.Errorf("swap: %v", s)
	}
}

func TestFiguresAreInTheUnitsOfCRI(t *testing.T) {
	got, err := reader(t).Container(running("a"))
	if err != nil {
		t.Fatal(err)
	}

	// The other fields are compared in the tests of what reads them.
	want := &runtimeapi.ContainerStats{
		Cpu: &runtimeapi.CpuUsage{
			UsageCoreNanoSeconds: value(136_243_000),
			Psi: &runtimeapi.PsiStats{
				Some: &runtimeapi.PsiData{
					Total:  582_749_000,
					Avg10:  12.5,
					Avg60:  3.25,
					Avg300: 0.01,
				},
				Full: &runtimeapi.PsiData{Total: 581_678_000, Avg10: 1, Avg60: 0.5},
			},
		},
		Swap: &runtimeapi.SwapUsage{
			SwapUsageBytes:     value(4096),
			SwapAvailableBytes: value(32<<20 - 4096),
		},
	}

	got.Cpu.Timestamp = 0
	got.Swap.Timestamp = 0
	if diff := cmp.Diff(want.Cpu, got.Cpu, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want.Swap, got.Swap, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if got.Io.GetPsi().GetSome().GetTotal() != 8_441_000 || got.Memory.GetPsi() == nil {
		t.Errorf("pressure: %v, %v", got.Io, got.Memory)
	}
}

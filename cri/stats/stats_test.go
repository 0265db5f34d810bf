package stats

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"testing"
	"time"

	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/record"
	"github.com/trivet-node/trivet/cri/rootfs"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// node has one sandbox, and containers of which some cannot be read.
type node struct{}

var errBroken = errors.New("broken")

func (node) Get(id string) (sandbox.Record, error) {
	if id != "s" {
		return sandbox.Record{}, record.ErrNotFound
	}
	return sandbox.Record{ID: "s"}, nil
}

func (node) Dir() string { return "/var/lib/trivet/cri/rootfs" }

type layers struct{ node }

func (layers) Usage(id string) (rootfs.Usage, error) {
	if id == "broken-layer" {
		return rootfs.Usage{}, errBroken
	}
	return rootfs.Usage{Bytes: 7, Inodes: 2}, nil
}

type cgroups struct{}

func (cgroups) Usage(group string) (cgroup.Usage, error) {
	switch group {
	case "/trivet/ending":
		return cgroup.Usage{}, fmt.Errorf("%s: %w", group, fs.ErrNotExist)
	case "/trivet/broken-group":
		return cgroup.Usage{}, errBroken
	}

	return cgroup.Usage{
		Time:        time.Unix(1, 0),
		CPU:         3 * time.Second,
		Memory:      50,
		WorkingSet:  30,
		MemoryLimit: 100,
	}, nil
}

func reader() *Reader {
	return New(Config{
		Sandboxes: node{},
		Cgroups:   cgroups{},
		Driver:    cgroupdriver.Driver{},
		Layers:    layers{},
		Log:       slog.New(slog.DiscardHandler),
	})
}

func running(id string) container.Record {
	return container.Record{ID: id, Sandbox: "s", State: life.Running}
}

func TestContainerThatCannotBeReadHidesNoOther(t *testing.T) {
	all := []container.Record{running("a"), running("broken-layer"), running("broken-group"), running("b")}
	got := reader().Containers(all)
	if len(got) != 2 || got[0].Attributes.Id != "a" || got[1].Attributes.Id != "b" {
		t.Errorf("stats %v", got)
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
		st, err := reader().Container(c.container)
		if err != nil {
			t.Fatal(err)
		}

		if (st.Memory != nil) != c.runs || (st.Cpu != nil) != c.runs ||
			st.WritableLayer.UsedBytes.Value != 7 {
			t.Errorf("%s: %v", c.container.ID, st)
		}

		if c.runs && (st.Memory.AvailableBytes.Value != 70 || st.Cpu.UsageCoreNanoSeconds.Value != 3e9) {
			t.Errorf("%s: %v", c.container.ID, st)
		}
	}
}

func TestMemoryWithoutALimitHasNoneAvailable(t *testing.T) {
	if m := memoryUsage(cgroup.Usage{WorkingSet: 30}); m.AvailableBytes != nil {
		t.Errorf("available %v", m.AvailableBytes)
	}
}

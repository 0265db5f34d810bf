package cgroup_test

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestGroupIsLimitedReadKilledAndRemoved(t *testing.T) {
	testenv.Root(t)
	h, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}
	group := "/trivet-test/" + t.Name()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	t.Cleanup(func() {
		if err := h.Remove(context.WithoutCancel(ctx), "/trivet-test"); err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		if err := h.Create(group); err != nil {
			t.Fatal(err)
		}
		if err := h.Apply(group, cgroup.Limits{CPUShares: 512, CPUQuota: 50_000, Memory: 64 << 20, PIDs: 50}); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := h.Add(group, cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	if u, err := h.Usage(group); err != nil || u.MemoryLimit != 64<<20 || u.PIDs != 1 {
		t.Errorf("usage %+v, %v", u, err)
	}
	go cmd.Wait() // a zombie stays in its group until it is reaped
	for range 2 {
		if err := h.Kill(ctx, group); err != nil {
			t.Error(err)
		}
		if err := h.Remove(ctx, group); err != nil {
			t.Error(err)
		}
	}
	if h.Exists(group) {
		t.Error("the group is still there")
	}
}

package cgroup_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/testenv"
)

// ownGroup is a cgroup that no other run of the tests uses, and none that was killed has left.
func ownGroup(t *testing.T) string { return "/" + filepath.Base(testenv.ShortDir(t)) }

// sleeper starts a process that ends with this one, and is reaped whenever it ends: a zombie stays in its
// group.
func sleeper(t *testing.T) (pid int) {
	t.Helper()
	cmd := exec.Command("cat")
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
	return cmd.Process.Pid
}

func TestGroupIsLimitedReadKilledAndRemoved(t *testing.T) {
	testenv.Root(t)
	h, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}

	parent := ownGroup(t)
	group := parent + "/" + t.Name()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	t.Cleanup(func() {
		if err := h.Remove(context.WithoutCancel(ctx), parent); err != nil {
			t.Error(err)
		}
	})

	for range 2 {
		if err := h.Create(group); err != nil {
			t.Fatal(err)
		}

		if err := h.Apply(group, cgroup.Limits{
			CPUShares: 512,
			CPUQuota:  50_000,
			Memory:    64 << 20,
			PIDs:      50,
		}); err != nil {
			t.Fatal(err)
		}
	}

	if err := h.Add(group, sleeper(t)); err != nil {
		t.Error(err)
	}
	if u, err := h.Usage(group); err != nil || u.MemoryLimit != 64<<20 || u.PIDs != 1 {
		t.Errorf("usage %+v, %v", u, err)
	}

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

// A Remove that is killed on v1 leaves the group in some hierarchies. It must still be seen there, and be
// removed.
func TestGroupThatIsPartlyRemovedIsSeenAndRemoved(t *testing.T) {
	testenv.Root(t)
	h, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}

	parent := ownGroup(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	t.Cleanup(func() {
		if err := h.Remove(context.WithoutCancel(ctx), parent); err != nil {
			t.Error(err)
		}
	})

	for _, controller := range []string{"memory", "cpu", "pids"} {
		group := parent + "/" + controller
		if err := h.Create(group); err != nil {
			t.Fatal(err)
		}

		// v2 has one hierarchy: nothing is removed in parts
		if !h.V2 {
			if err := os.Remove(h.Dir(controller, group)); err != nil {
				t.Fatal(err)
			}
		}
	}

	children, err := h.Children(parent)
	if want := []string{"cpu", "memory", "pids"}; err != nil || !slices.Equal(children, want) {
		t.Errorf("groups %q, %v, want %q", children, err, want)
	}

	for _, c := range children {
		if !h.Exists(parent + "/" + c) {
			t.Errorf("group %s is not seen", c)
		}
		if err := h.Remove(ctx, parent+"/"+c); err != nil || h.Exists(parent+"/"+c) {
			t.Errorf("group %s is still there: %v", c, err)
		}
	}

	if children, err := h.Children(parent + "/none"); err != nil || len(children) > 0 {
		t.Errorf("a group that is not there has %q, %v", children, err)
	}
}

// crun has a container's processes in a group of their own below the scope that systemd made.
func TestOOMKillsBelowAScopeAreCounted(t *testing.T) {
	testenv.Root(t)
	h, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}

	scope := ownGroup(t)
	t.Cleanup(func() {
		if err := h.Remove(context.WithoutCancel(t.Context()), scope); err != nil {
			t.Error(err)
		}
	})
	if err := h.Create(scope + "/" + cgroup.CrunGroup); err != nil {
		t.Fatal(err)
	}
	if err := h.Apply(scope, cgroup.Limits{Memory: 16 << 20}); err != nil {
		t.Fatal(err)
	}

	greedy := exec.Command("sh", "-c", "read go; exec tail /dev/zero")
	start, err := greedy.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := greedy.Start(); err != nil {
		t.Fatal(err)
	}
	if err := h.Add(scope+"/"+cgroup.CrunGroup, greedy.Process.Pid); err != nil {
		t.Error(err)
	}
	if n, err := h.OOMKills(scope); err != nil || n != 0 {
		t.Errorf("before: %d OOM kills, %v", n, err)
	}

	start.Close()
	_ = greedy.Wait()
	if n, err := h.OOMKills(scope); err != nil || n != 1 {
		t.Errorf("after: %d OOM kills, %v; want 1", n, err)
	}
}

package podcgroup

import (
	"context"
	"strconv"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/cgroup"
)

func TestAPodsGroupIsWidenedBeforeItsContainersAndNarrowedAfterThem(t *testing.T) {
	host, root := ownRoot(t)
	tree, err := New(Config{
		Host:     host,
		Root:     root,
		Driver:   "cgroupfs",
		PodPIDs:  60,
		CPUQuota: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}

	resizes(t, tree, host)
}

func TestASliceIsWidenedBeforeItsContainersAndNarrowedAfterThem(t *testing.T) {
	tree, cfg := onSystemd(t, "/resizes")
	resizes(t, tree, cfg.Host)
}

// has is what a group has: shares, quota and MiB of memory as on v1. -1 is unlimited.
type has struct{ shares, quota, memory int64 }

// in reads what a group has. Shares that have the same weight on v2 are taken for those that are wanted.
func in(t *testing.T, host *cgroup.Host, group string, want has) has {
	t.Helper()
	limits := limitsOf(t, host, group)
	number := func(name string) int64 {
		n, err := strconv.ParseInt(limits[name], 10, 64)
		if err != nil && limits[name] != "max" {
			t.Error(err)
		}
		if err != nil || n > 1<<62 {
			return -1
		}
		return n
	}

	out := has{shares: number("shares"), quota: number("quota"), memory: number("memory")}
	if host.V2 && uint64(out.shares) == cgroup.Weight(uint64(want.shares)) {
		out.shares = want.shares
	}
	if out.memory > 0 {
		out.memory >>= 20
	}
	return out
}

// resizes resizes one pod, whose container always has as much as the pod.
func resizes(t *testing.T, tree *Tree, host *cgroup.Host) {
	t.Helper()
	uid := limitedPod().UID
	t.Cleanup(func() {
		if err := tree.Remove(context.WithoutCancel(t.Context()), uid); err != nil {
			t.Error(err)
		}
	})

	for _, c := range []struct {
		name           string
		request, limit v1.ResourceList
		widened, exact has
	}{
		{"new", amounts("100m", "8Mi"), amounts("500m", "60Mi"), has{102, 50_000, 60}, has{102, 50_000, 60}},
		{"same", amounts("100m", "8Mi"), amounts("500m", "60Mi"), has{102, 50_000, 60}, has{102, 50_000, 60}},
		{"grows", amounts("1", "8Mi"), amounts("2", "90Mi"), has{1024, 200_000, 90}, has{1024, 200_000, 90}},
		{"both", amounts("2", "8Mi"), amounts("3", "60Mi"), has{2048, 300_000, 90}, has{2048, 300_000, 60}},
		{"less", amounts("1", "8Mi"), amounts("2", "40Mi"), has{2048, 300_000, 60}, has{1024, 200_000, 40}},
		{"none", amounts("1", "8Mi"), nil, has{1024, -1, -1}, has{1024, -1, -1}},
		{"limits", amounts("1", "8Mi"), amounts("2", "40Mi"), has{1024, -1, -1}, has{1024, 200_000, 40}},
	} {
		p := pod(v1.ResourceRequirements{Requests: c.request, Limits: c.limit})
		p.UID = uid
		if err := tree.Widen(t.Context(), p); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := in(t, host, tree.group(p), c.widened); got != c.widened {
			t.Errorf("%s, widened: %+v, want %+v", c.name, got, c.widened)
		}

		// On v1 the kernel refuses a quota above that of the group above, and one below that of a group
		// below.
		container := tree.group(p) + "/container"
		if err := host.Create(container); err != nil {
			t.Fatal(err)
		}
		if err := host.Apply(container, cgroup.Limits{CPUQuota: c.exact.quota}); err != nil {
			t.Errorf("%s, container: %v", c.name, err)
		}

		if err := tree.Ensure(t.Context(), p); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := in(t, host, tree.group(p), c.exact); got != c.exact {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.exact)
		}
	}
}

func TestAContainerThatHasEndedDoesNotKeepAPodFromBeingNarrowed(t *testing.T) {
	host, root := ownRoot(t)
	tree, err := New(Config{
		Host:     host,
		Root:     root,
		Driver:   "cgroupfs",
		CPUQuota: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}

	p := pod(v1.ResourceRequirements{Limits: amounts("2", "40Mi")})
	t.Cleanup(func() {
		if err := tree.Remove(context.WithoutCancel(t.Context()), p.UID); err != nil {
			t.Error(err)
		}
	})
	if err := tree.Ensure(t.Context(), p); err != nil {
		t.Fatal(err)
	}

	// What the runtime keeps of it, with a group below as crun makes it.
	ended := tree.group(p) + "/ended"
	for _, group := range []string{ended, ended + "/container"} {
		if err := host.Create(group); err != nil {
			t.Fatal(err)
		}
		if err := host.Apply(group, cgroup.Limits{CPUQuota: 200_000}); err != nil {
			t.Fatal(err)
		}
	}

	smaller := pod(v1.ResourceRequirements{Limits: amounts("1", "40Mi")})
	smaller.UID = p.UID
	if err := tree.Ensure(t.Context(), smaller); err != nil {
		t.Error(err)
	}
	if got := limitsOf(t, host, tree.group(p))["quota"]; got != "100000" {
		t.Errorf("quota %s", got)
	}
}

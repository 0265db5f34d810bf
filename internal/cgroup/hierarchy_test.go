package cgroup

import (
	"maps"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/internal/mountinfo"
)

// What a kind node shows on cgroup v1: kind binds the groups that kubelet starts from over themselves.
const kindNode = `500 499 0:30 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755
501 500 0:31 / /sys/fs/cgroup/systemd rw,nosuid - cgroup systemd rw,xattr,name=systemd
502 500 0:32 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
503 500 0:33 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
504 500 0:34 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw
520 503 0:33 /kubelet /sys/fs/cgroup/memory/kubelet rw,nosuid - cgroup cgroup rw,memory
521 503 0:33 /kubelet.slice /sys/fs/cgroup/memory/kubelet.slice rw,nosuid - cgroup cgroup rw,memory
522 501 0:31 /kubelet /sys/fs/cgroup/systemd/kubelet rw,nosuid - cgroup systemd rw,xattr,name=systemd
523 504 0:34 /kubelet /sys/fs/cgroup/unified/kubelet rw,nosuid - cgroup2 cgroup2 rw
530 500 0:33 / /sys/fs/cgroup/mem rw,nosuid - cgroup cgroup rw,memory
540 500 0:39 / /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids
`

func TestOnlyRootsOfHierarchiesAreTakenForThem(t *testing.T) {
	covered := "/sys/fs/cgroup/pids"
	h := legacy(mountinfo.Parse(kindNode), func(point, _ string) bool { return point != covered })
	want := []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory",
		"/sys/fs/cgroup/unified"}
	if !slices.Equal(h.hierarchies, want) {
		t.Errorf("hierarchies %q, want %q", h.hierarchies, want)
	}

	controllers := slices.Sorted(maps.Keys(h.controllers))
	if want := []string{"cpu", "cpuacct", "memory", "systemd"}; !slices.Equal(controllers, want) {
		t.Errorf("controllers %q, want %q", controllers, want)
	}
	if got := h.Dir("memory", "/kubepods"); got != "/sys/fs/cgroup/memory/kubepods" {
		t.Errorf("kubepods' memory is in %s", got)
	}
}

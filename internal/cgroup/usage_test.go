package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tree makes files of these contents below a new directory, which stands for /sys/fs/cgroup.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	return dir
}

// legacyTree is what Linux 6.18 shows of the group /g on v1.
func legacyTree(t *testing.T) *Host {
	t.Helper()
	dir := tree(t, map[string]string{
		"cpuacct/g/cpuacct.usage":        "1500000000\n",
		"memory/g/memory.usage_in_bytes": "8388608\n",
		"memory/g/memory.limit_in_bytes": "9223372036854771712\n",
		"memory/g/memory.stat": "cache 4194304\nrss 0\ntotal_cache 4194304\ntotal_rss 4096\n" +
			"total_swap 512\ntotal_pgfault 70\ntotal_pgmajfault 3\ntotal_inactive_file 2097152\n",
		"memory/g/memory.oom_control":           "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
		"memory/g/container/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
		"pids/g/pids.current":                   "5\n",
	})

	h := &Host{controllers: map[string]string{}}
	for _, controller := range []string{"cpuacct", "memory", "pids"} {
		point := filepath.Join(dir, controller)
		h.controllers[controller] = point
		h.hierarchies = append(h.hierarchies, point)
	}

	return h
}

// unifiedTree is what Linux 6.18 shows of the group /g on v2.
func unifiedTree(t *testing.T) *Host {
	t.Helper()
	dir := tree(t, map[string]string{
		"cgroup.controllers":    "cpu memory pids\n",
		"g/cpu.stat":            "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n",
		"g/memory.current":      "8388608\n",
		"g/memory.max":          "max\n",
		"g/memory.swap.current": "512\n",
		"g/memory.stat":         "anon 4096\nfile 4194304\ninactive_file 2097152\npgfault 70\npgmajfault 3\n",
		"g/memory.events":       "low 0\nhigh 0\nmax 4\noom 3\noom_kill 3\noom_group_kill 0\n",
		"g/pids.current":        "5\n",
	})

	return &Host{V2: true, hierarchies: []string{dir}}
}

func TestUsageIsTheSameOnBothVersions(t *testing.T) {
	for name, h := range map[string]*Host{"v1": legacyTree(t), "v2": unifiedTree(t)} {
		got, err := h.Usage("/g")
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got.CPU != 1500*time.Millisecond || got.Memory != 8<<20 || got.WorkingSet != 6<<20 ||
			got.RSS != 4096 || got.PageFaults != 70 || got.Swap != 512 || got.PIDs != 5 {
			t.Errorf("%s: %+v", name, got)
		}
		if got, err := h.MemoryUsage("/g"); err != nil || got != 8<<20 {
			t.Errorf("%s: memory %d, %v", name, got, err)
		}
		if kills, err := h.OOMKills("/g"); kills != 3 || err != nil {
			t.Errorf("%s: %d OOM kills, %v; want 3", name, kills, err)
		}
	}
}

func TestLimitOfMemoryIsRead(t *testing.T) {
	for name, c := range map[string]struct {
		host *Host
		file string
	}{
		"v1": {legacyTree(t), "memory.limit_in_bytes"},
		"v2": {unifiedTree(t), "memory.max"},
	} {
		path := filepath.Join(c.host.Dir("memory", "/g"), c.file)
		if err := os.WriteFile(path, []byte("67108864\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := c.host.Usage("/g"); err != nil || got.MemoryLimit != 64<<20 {
			t.Errorf("%s: limit %d, %v; want 64 MiB", name, got.MemoryLimit, err)
		}
	}
}

func TestUsageOfAGroupThatIsGone(t *testing.T) {
	for name, h := range map[string]*Host{"v1": legacyTree(t), "v2": unifiedTree(t)} {
		if _, err := h.Usage("/gone"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestControllers(t *testing.T) {
	for name, h := range map[string]*Host{"v1": legacyTree(t), "v2": unifiedTree(t)} {
		if !h.Controller("memory") || h.Controller("hugetlb") {
			t.Errorf("%s: memory %v, hugetlb %v", name, h.Controller("memory"), h.Controller("hugetlb"))
		}
	}
}

func TestChildrenAreThoseOfAllHierarchies(t *testing.T) {
	h := legacyTree(t)
	for _, dir := range []string{"cpuacct/b", "memory/a", "pids/b"} {
		controller, group := filepath.Split(dir)
		if err := os.Mkdir(h.Dir(filepath.Clean(controller), "/g/"+group), 0o700); err != nil {
			t.Fatal(err)
		}
	}

	got, err := h.Children("/g")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b", "container"}, got); diff != "" {
		t.Error(diff)
	}
	if !h.Exists("/g/a") || h.Exists("/g/c") {
		t.Errorf("a exists: %v, c exists: %v", h.Exists("/g/a"), h.Exists("/g/c"))
	}
	if got, err := h.Children("/gone"); len(got) > 0 || err != nil {
		t.Errorf("of a group that is gone: %v, %v", got, err)
	}
}

func TestProcessesAreThoseOfAGroupAndBelow(t *testing.T) {
	dir := tree(t, map[string]string{
		"g/cgroup.procs":       "30\n0\n",
		"g/below/cgroup.procs": "4\n30\n",
		"other/cgroup.procs":   "5\n",
	})

	got, err := (&Host{hierarchies: []string{dir, dir}}).Procs("/g")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{4, 30}, got); diff != "" {
		t.Error(diff)
	}
}

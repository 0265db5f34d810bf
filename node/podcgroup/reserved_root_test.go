package podcgroup

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestDaemonsAreHeldToTheirReserve(t *testing.T) {
	testenv.Root(t)
	host, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}

	group := "/trivet-test-" + t.Name()
	tree, err := New(Config{Host: host, Root: group, Driver: "cgroupfs"})
	if err != nil {
		t.Fatal(err)
	}

	limits := cgroup.Limits{CPUShares: 512, Memory: 1 << 28, PIDs: 1000}
	limits.MemoryMin = new(limits.Memory)
	err = tree.Enforce(t.Context(), group+"/daemons", limits)
	missing := `cgroup ["trivet-test-TestDaemonsAreHeldToTheirReserve" "daemons"]`
	if err == nil || !strings.Contains(err.Error(), missing) || host.Exists(group) {
		t.Fatalf("a group that is not there: %v", err)
	}

	if err := host.Create(group + "/daemons"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Remove(context.WithoutCancel(t.Context()), group); err != nil {
			t.Error(err)
		}
	})

	for range 2 {
		if err := tree.Enforce(t.Context(), group+"/daemons", limits); err != nil {
			t.Fatal(err)
		}
	}

	want := []string{"cpu cpu.shares 512", "memory memory.limit_in_bytes 268435456", "pids pids.max 1000"}
	if host.V2 {
		want = []string{"cpu cpu.weight 59", "memory memory.max 268435456", "memory memory.min 268435456",
			"pids pids.max 1000"}
	}

	for _, line := range want {
		controller, rest, _ := strings.Cut(line, " ")
		file, value, _ := strings.Cut(rest, " ")
		got, err := os.ReadFile(filepath.Join(host.Dir(controller, group+"/daemons"), file))
		if err != nil || strings.TrimSpace(string(got)) != value {
			t.Errorf("%q, %v; want %s", got, err, line)
		}
	}
}

func TestDaemonsAreHeldToTheirReserveUnderSystemd(t *testing.T) {
	tree, cfg := onSystemd(t, "/trivettestreserve")
	const slice = "trivettestdaemons.slice"
	limits := cgroup.Limits{CPUShares: 512, Memory: 1 << 28, PIDs: 1000}
	if err := tree.Enforce(t.Context(), slice, limits); err == nil || cfg.Host.Exists("/"+slice) {
		t.Fatalf("a slice that is not there: %v", err)
	}

	// As an administrator makes it.
	file := filepath.Join("/run/systemd/system", slice)
	unit := "[Slice]\nCPUAccounting=yes\nMemoryAccounting=yes\nTasksAccounting=yes\n"
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}

	systemctl(t, "daemon-reload")
	systemctl(t, "start", slice)
	t.Cleanup(func() {
		systemctl(t, "stop", slice)
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
		systemctl(t, "daemon-reload")
	})

	for _, name := range []string{slice, "/" + slice, strings.TrimSuffix(slice, ".slice")} {
		if err := tree.Enforce(t.Context(), name, limits); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}

	want := map[string]string{"shares": "512", "memory": "268435456", "pids": "1000"}
	if cfg.Host.V2 {
		want["shares"] = "59"
	}

	// They are systemd's, too, which would write its own otherwise.
	systemctl(t, "daemon-reload")
	got := limitsOf(t, cfg.Host, "/"+slice)
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %s, want %s", name, got[name], value)
		}
	}
}

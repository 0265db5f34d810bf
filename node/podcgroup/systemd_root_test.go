package podcgroup

import (
	"context"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/unit"
)

const podUID types.UID = "0a1b2c3d-0000-4000-8000-0123456789ab"

// onSystemd is a tree below a root of the test's own, on a machine whose PID 1 is systemd.
func onSystemd(t *testing.T, root string) (*Tree, Config) {
	t.Helper()
	if os.Getenv("TRIVET_SYSTEMD") == "" {
		t.Skip("runs in a machine whose PID 1 is systemd, by the tests of e2e/machine: no TRIVET_SYSTEMD")
	}

	testenv.Root(t)
	host, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}

	cfg := Config{
		Host:     host,
		Slices:   &unit.Slices{},
		Driver:   "systemd",
		Root:     root,
		PodPIDs:  60,
		CPUQuota: true,
	}

	tree, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		systemctl(t, "stop", path.Base(root)+".slice")
		awaitNoUnits(t, path.Base(root)+"*")
		cfg.Slices.Close()
	})

	return tree, cfg
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		t.Errorf("systemctl %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// awaitNoUnits waits until systemd knows no unit of the pattern: it forgets those that were stopped when it
// has nothing else to do.
func awaitNoUnits(t *testing.T, pattern string) {
	t.Helper()
	limit := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()

	for {
		left := systemctl(t, "list-units", "--all", "--plain", "--no-legend", pattern)
		if left == "" {
			return
		}

		select {
		case <-tick.C:
		case <-limit:
			t.Errorf("units are left: %s", left)
			return
		}
	}
}

// inScope runs a shell script as a container runtime would have it run: in a scope of the slice.
func inScope(t *testing.T, slice, script string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	// Collected as runtimes have it, or systemd would keep a scope that has failed, and its slice.
	cmd := exec.CommandContext(ctx, "systemd-run", "--quiet", "--collect", "--scope", "--slice="+slice,
		"sh", "-c", script)
	out, err := cmd.CombinedOutput()
	t.Logf("%s: %v %s", script, err, out)
	return err
}

// limitsOf reads the limits of a group from the kernel.
func limitsOf(t *testing.T, host *cgroup.Host, group string) map[string]string {
	t.Helper()
	files := map[string][2]string{
		"shares": {"cpu", "cpu.shares"},
		"quota":  {"cpu", "cpu.cfs_quota_us"},
		"memory": {"memory", "memory.limit_in_bytes"},
		"pids":   {"pids", "pids.max"},
	}
	if host.V2 {
		files = map[string][2]string{
			"shares": {"cpu", "cpu.weight"},
			"quota":  {"cpu", "cpu.max"},
			"memory": {"memory", "memory.max"},
			"pids":   {"pids", "pids.max"},
		}
	}

	out := map[string]string{}
	for name, f := range files {
		data, err := os.ReadFile(filepath.Join(host.Dir(f[0], group), f[1]))
		if err != nil {
			t.Error(err)
		}

		out[name], _, _ = strings.Cut(strings.TrimSpace(string(data)), " ")
	}

	return out
}

func limitedPod() *v1.Pod {
	p := pod(v1.ResourceRequirements{Requests: amounts("100m", "10Mi"), Limits: amounts("500m", "60Mi")})
	p.UID = podUID
	return p
}

func TestPodLimitsAreInForceUnderSystemd(t *testing.T) {
	tree, cfg := onSystemd(t, "/limits")
	p := limitedPod()
	for range 2 {
		if err := tree.Ensure(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}

	shares := "102"
	if cfg.Host.V2 {
		shares = "17"
	}

	check := func(when string) {
		t.Helper()
		got := limitsOf(t, cfg.Host, tree.group(p))
		wanted := map[string]string{"shares": shares, "quota": "50000", "memory": "62914560", "pids": "60"}
		for name, want := range wanted {
			if got[name] != want {
				t.Errorf("%s: %s %s, want %s", when, name, got[name], want)
			}
		}
	}

	check("at first")

	if err := inScope(t, tree.Parent(p), "true"); err != nil {
		t.Error(err)
	}

	// a slice that systemd does not know of is set to its defaults by that
	check("after a scope")
	systemctl(t, "daemon-reload")
	check("after a reload")
	systemctl(t, "daemon-reexec")
	check("after systemd was executed again")

	const greedy = "exec dd if=/dev/zero of=/dev/null bs=200000000 count=1"
	if err := inScope(t, tree.Parent(p), greedy); err == nil {
		t.Error("200 MB were taken with a limit of 60 MiB")
	}

	const forks = "for i in $(seq 100); do sleep 1000 </dev/null >/dev/null 2>&1 & done"
	if err := inScope(t, tree.Parent(p), forks); err == nil {
		t.Error("a hundred processes were started with a limit of 60")
	}
}

func TestSlicesOfPodsThatAreGoneGo(t *testing.T) {
	tree, cfg := onSystemd(t, "/gone")
	p := limitedPod()
	if err := tree.Ensure(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := inScope(t, tree.Parent(p), "sleep 1000 </dev/null >/dev/null 2>&1 &"); err != nil {
		t.Error(err)
	}

	uids, err := tree.Pods()
	if err != nil || len(uids) != 1 || uids[0] != podUID {
		t.Errorf("pods with a group: %v, %v", uids, err)
	}

	for range 2 {
		if err := tree.Remove(t.Context(), podUID); err != nil {
			t.Fatal(err)
		}
	}

	if cfg.Host.Exists(tree.group(p)) {
		t.Error("the pod's group is still there")
	}

	awaitNoUnits(t, tree.Parent(p))
}

// crun has scopes kept that have failed. One keeps the slice that it is in.
func TestSlicesGoWithTheUnitsThatHaveFailedInThem(t *testing.T) {
	tree, cfg := onSystemd(t, "/failed")
	p := limitedPod()
	if err := tree.Ensure(t.Context(), p); err != nil {
		t.Fatal(err)
	}

	const scope = "trivet-test-failed.scope"
	start := exec.CommandContext(t.Context(), "systemd-run", "--quiet", "--scope", "--unit="+scope,
		"--slice="+tree.Parent(p), "--property=TimeoutStopSec=1",
		"sh", "-c", "trap '' TERM; echo; while :; do sleep 1; done")
	output, err := start.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := start.Start(); err != nil {
		t.Fatal(err)
	}

	// now it ignores SIGTERM
	if _, err := output.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}

	systemctl(t, "stop", scope)
	if state := systemctl(t, "show", "--property=ActiveState", "--value", scope); state != "failed" {
		t.Errorf("the scope is %s, want it failed", state)
	}

	// As an earlier removal left it: no directory is there any more.
	_ = start.Wait()
	systemctl(t, "stop", tree.Parent(p))
	if err := cfg.Host.Remove(t.Context(), tree.group(p)); err != nil {
		t.Error(err)
	}

	uids, err := tree.Pods()
	if err != nil || len(uids) != 1 || uids[0] != podUID {
		t.Errorf("pods with a slice: %v, %v", uids, err)
	}
	if err := tree.Remove(t.Context(), podUID); err != nil {
		t.Error(err)
	}

	awaitNoUnits(t, tree.Parent(p))
	awaitNoUnits(t, scope)
	if uids, err := tree.Pods(); err != nil || len(uids) > 0 {
		t.Errorf("pods with a slice after the removal: %v, %v", uids, err)
	}
}

func TestSystemdMayBeRestartedBetweenCalls(t *testing.T) {
	tree, cfg := onSystemd(t, "/restarts")
	restarts := [][]string{{"daemon-reexec"}, {"stop", "dbus.socket", "dbus.service"},
		{"start", "dbus.service"}}
	for i, restart := range restarts {
		systemctl(t, restart...)
		p := limitedPod()
		p.UID = types.UID("pod" + string(rune('a'+i)))
		if err := tree.Ensure(t.Context(), p); err != nil {
			t.Errorf("after %v: %v", restart, err)
		}
		if got := limitsOf(t, cfg.Host, tree.group(p))["memory"]; got != "62914560" {
			t.Errorf("after %v: memory limit %s", restart, got)
		}
		if err := tree.Remove(t.Context(), p.UID); err != nil {
			t.Errorf("after %v: %v", restart, err)
		}
	}
}

// A node whose runtime was changed over to systemd, or back, without a reboot.
func TestGroupsOfTheOtherDriverGoWhenNothingRunsInThem(t *testing.T) {
	bySlice, cfg := onSystemd(t, "/both")
	cfg.Driver = "cgroupfs"
	byPath, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}

	p := limitedPod()
	for now, before := range map[*Tree]*Tree{bySlice: byPath, byPath: bySlice} {
		if err := before.Setup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := before.Ensure(t.Context(), p); err != nil {
			t.Fatal(err)
		}

		sleep := exec.Command("sleep", "1000")
		if err := sleep.Start(); err != nil {
			t.Fatal(err)
		}
		if err := cfg.Host.Add(before.group(p), sleep.Process.Pid); err != nil {
			t.Error(err)
		}

		for _, running := range []bool{true, false} {
			if !running {
				if err := sleep.Process.Kill(); err != nil {
					t.Error(err)
				}

				_ = sleep.Wait()
			}

			uids, err := now.Pods()
			if running && (err != nil || len(uids) != 1) {
				t.Errorf("pods with a group: %v, %v", uids, err)
			}
			if err := now.Remove(t.Context(), podUID); err != nil {
				t.Error(err)
			}
			if err := now.Retire(t.Context()); err != nil {
				t.Error(err)
			}
			if got := cfg.Host.Exists(before.group(p)); got != running {
				t.Errorf("with a process %v: the old group is there %v", running, got)
			}
		}

		kubepods := path.Dir(path.Dir(before.group(p)))
		if cfg.Host.Exists(kubepods) {
			t.Errorf("%s is still there", kubepods)
		}
	}

	if err := cfg.Host.Remove(context.WithoutCancel(t.Context()), "/both"); err != nil {
		t.Error(err)
	}
}

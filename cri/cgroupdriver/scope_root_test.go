package cgroupdriver_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/internal/systemd"
	"github.com/trivet-node/trivet/internal/testenv"
)

var onSystemd = cgroupdriver.Driver{Systemd: true}

func needSystemd(t *testing.T) {
	t.Helper()
	if os.Getenv("TRIVET_SYSTEMD") == "" {
		t.Skip("runs in a machine whose PID 1 is systemd, by the tests of e2e/machine: no TRIVET_SYSTEMD")
	}
	testenv.Root(t)
}

// startScope starts the scope of a container as an OCI runtime does, with further properties. What runs in it
// ignores SIGTERM.
func startScope(t *testing.T, id string, properties ...string) {
	t.Helper()
	args := []string{"--quiet", "--scope", "--unit=trivet-" + id + ".scope", "--property=TimeoutStopSec=1"}
	for _, p := range properties {
		args = append(args, "--property="+p)
	}

	args = append(args, "sh", "-c", "trap '' TERM; echo; while :; do sleep 1; done")
	cmd := exec.Command("systemd-run", args...)
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := output.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}

	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = exec.Command("systemctl", "--quiet", "reset-failed", "trivet-"+id+".scope").Run()
	})
}

// fail stops a scope whose process has to be killed: its state is then failed, with nothing in it.
func fail(t *testing.T, id string) {
	t.Helper()
	if out, err := exec.Command("systemctl", "stop", "trivet-"+id+".scope").CombinedOutput(); err != nil {
		t.Errorf("stop: %v: %s", err, out)
	}
}

// awaitForgotten waits until systemd has forgotten a scope, which it does when it has nothing else to do.
func awaitForgotten(t *testing.T, id string) {
	t.Helper()
	limit := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()

	for systemd.Transient("trivet-" + id + ".scope") {
		select {
		case <-tick.C:
		case <-limit:
			t.Errorf("scope of %s is left", id)
			return
		}
	}
}

func TestScopeThatARuntimeLeftIsRemoved(t *testing.T) {
	needSystemd(t)
	startScope(t, "runs")
	startScope(t, "failed")
	fail(t, "failed")
	for _, id := range []string{"runs", "failed", "never-there"} {
		for range 2 {
			if err := onSystemd.RemoveScope(t.Context(), id); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}

		awaitForgotten(t, id)
	}
}

func TestFailedScopesOfUnknownContainersAreForgotten(t *testing.T) {
	needSystemd(t)
	startScope(t, "runs")
	startScope(t, "failed")
	fail(t, "failed")

	everything := func(string) bool { return true }
	if err := onSystemd.ResetFailedScopes(t.Context(), everything); err != nil {
		t.Error(err)
	}
	if !systemd.Transient("trivet-failed.scope") {
		t.Error("the failed scope of a known container is forgotten")
	}

	onlyTheOther := func(id string) bool { return id == "runs" }
	if err := onSystemd.ResetFailedScopes(t.Context(), onlyTheOther); err != nil {
		t.Error(err)
	}

	awaitForgotten(t, "failed")
	if !systemd.Transient("trivet-runs.scope") {
		t.Error("a scope in which something runs is forgotten")
	}
}

func TestScopesAreCollectedEvenWhenTheyFail(t *testing.T) {
	needSystemd(t)
	var properties []string
	for name, value := range onSystemd.Annotations(nil) {
		property := strings.TrimPrefix(name, "org.systemd.property.")
		properties = append(properties, property+"="+strings.Trim(value, "'"))
	}
	startScope(t, "failed", properties...)
	fail(t, "failed")
	awaitForgotten(t, "failed")
}

package maintainer

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/release/part"
)

// tools are what scripts call. Each writes its name and its arguments into a file.
var tools = []string{"deb-systemd-helper", "deb-systemd-invoke", "systemctl", "rm", "ls", "ip", "trivet-cri"}

// machine runs the scripts of a part with tools that do nothing.
type machine struct {
	t       *testing.T
	dir     string
	scripts map[string]string
}

func newMachine(t *testing.T, name string) machine {
	t.Helper()
	testenv.Program(t, "sh", "dash")
	p, ok := part.Find(name)
	if !ok {
		t.Fatalf("no part is called %s", name)
	}

	m := machine{t: t, dir: t.TempDir(), scripts: Scripts(p)}
	for _, tool := range tools {
		script := "#!/bin/sh\necho " + tool + " \"$@\" >>" + filepath.Join(m.dir, "calls") + "\n"
		if err := os.WriteFile(filepath.Join(m.dir, tool), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}

	return m
}

// run runs a script, twice as after a kill, and returns what the second run called.
func (m machine) run(script string, args ...string) string {
	m.t.Helper()
	calls := filepath.Join(m.dir, "calls")
	for range 2 {
		if err := os.WriteFile(calls, nil, 0o644); err != nil {
			m.t.Fatal(err)
		}

		cmd := exec.Command("sh", append([]string{"-c", m.scripts[script], script}, args...)...)
		cmd.Env = []string{"PATH=" + m.dir + ":" + os.Getenv("PATH")}
		if out, err := cmd.CombinedOutput(); err != nil {
			m.t.Fatalf("%s %q: %v: %s", script, args, err, out)
		}
	}

	text, err := os.ReadFile(calls)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

func TestInstallationEnablesTheServiceUnlessTheAdministratorDoes(t *testing.T) {
	for name, enables := range map[string]bool{
		"trivet-cri":  true,
		"trivet-csi":  true,
		"trivet-netd": true,
		"trivet-node": false,
	} {
		calls := newMachine(t, name).run("postinst", "configure", "")
		if got := strings.Contains(calls, "deb-systemd-helper enable "+name+".service"); got != enables {
			t.Errorf("%s is enabled: %v, want %v:\n%s", name, got, enables, calls)
		}
	}
}

func TestUpgradeStopsNothing(t *testing.T) {
	for _, p := range part.Parts {
		m := newMachine(t, p.Name)
		calls := m.run("prerm", "upgrade", "0.2.0") + m.run("postrm", "upgrade", "0.2.0")
		if calls != "" {
			t.Errorf("an upgrade of %s calls\n%s", p.Name, calls)
		}
	}
}

func TestRemovalOfTheRuntimeEndsTheMonitorWhereNoPodIsLeft(t *testing.T) {
	m := newMachine(t, "trivet-cri")
	if calls := m.run("prerm", "remove"); !strings.HasPrefix(calls, "trivet-cri --shutdown\n") {
		t.Errorf("a removal calls\n%s", calls)
	}
}

func TestPurgeLeavesVolumesAndPods(t *testing.T) {
	for _, p := range part.Parts {
		calls := newMachine(t, p.Name).run("postrm", "purge")
		for _, kept := range []string{"/var/lib/trivet/csi", "/var/lib/kubelet/pods", "/var/lib/cni"} {
			if strings.Contains(calls, kept) {
				t.Errorf("a purge of %s calls\n%s", p.Name, calls)
			}
		}

		forgets := "deb-systemd-helper purge " + p.Service.Unit
		if !strings.Contains(calls, "rm ") || !strings.Contains(calls, forgets) {
			t.Errorf("a purge of %s leaves its files, or the state of its service:\n%s", p.Name, calls)
		}
	}
}

func TestUnknownArgumentIsRefused(t *testing.T) {
	for name, script := range newMachine(t, "trivet-cri").scripts {
		out, err := exec.Command("sh", "-c", script, name, "dance").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "'dance'") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

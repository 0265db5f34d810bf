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
var tools = []string{"deb-systemd-helper", "deb-systemd-invoke", "systemctl", "rm", "ip", "nft", "trivet-cri"}

// machine runs the scripts of a part with tools that do nothing, and files below dir in the place of the
// machine's.
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
	for name, script := range m.scripts {
		for _, dir := range []string{"/run/", "/proc/", "/etc/trivet/", "/usr/local/bin/"} {
			script = strings.ReplaceAll(script, " "+dir, " "+m.dir+dir)
		}
		m.scripts[name] = script
	}
	m.write("run/systemd/system/boot", "")

	for _, tool := range tools {
		script := "#!/bin/sh\necho " + tool + " \"$@\" >>" + filepath.Join(m.dir, "calls") + "\n"
		if err := os.WriteFile(filepath.Join(m.dir, tool), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}

	return m
}

// write writes a file of the machine.
func (m machine) write(name, text string) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
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

// TestRemovalLeavesAServiceThatIsNotThePackages is of a program of an installer, which comes before that of
// the package.
func TestRemovalLeavesAServiceThatIsNotThePackages(t *testing.T) {
	for _, p := range part.Parts {
		m := newMachine(t, p.Name)
		m.write("usr/local/bin/"+p.Name, "")
		calls := m.run("prerm", "remove")
		if strings.Contains(calls, "stop") || strings.Contains(calls, "--shutdown") {
			t.Errorf("a removal of %s calls\n%s", p.Name, calls)
		}
		if calls := m.run("postrm", "purge"); strings.Contains(calls, "deb-systemd-helper") {
			t.Errorf("a purge of %s calls\n%s", p.Name, calls)
		}
	}
}

func TestOnlyAnAgentThatRunsIsRestartedAndNoneIsStarted(t *testing.T) {
	m := newMachine(t, "trivet-node")
	first, upgrade := m.run("postinst", "configure", ""), m.run("postinst", "configure", "0.1.0")
	if strings.Contains(first+upgrade, "deb-systemd-invoke") || strings.Contains(first, "start") {
		t.Errorf("an installation calls\n%san upgrade\n%s", first, upgrade)
	}
	if !strings.Contains(upgrade, "systemctl try-restart trivet-node.service\n") {
		t.Errorf("an upgrade calls\n%s", upgrade)
	}
}

func TestAbortedRemovalStartsTheServiceAgain(t *testing.T) {
	for _, args := range [][]string{
		{"abort-remove"},
		{"abort-remove", "in-favour", "other", "1"},
		{"abort-deconfigure", "in-favour", "other", "1"},
	} {
		calls := newMachine(t, "trivet-cri").run("postinst", args...)
		if !strings.Contains(calls, "deb-systemd-invoke start trivet-cri.service\n") &&
			!strings.Contains(calls, "deb-systemd-invoke restart trivet-cri.service\n") {
			t.Errorf("%q calls\n%s", args, calls)
		}
	}
}

func TestAbortedRemovalStartsTheAgentAgainIfItRan(t *testing.T) {
	const start, mark = "systemctl start trivet-node.service\n", "run/trivet-node.ran"
	for _, ran := range []bool{true, false} {
		m := newMachine(t, "trivet-node")
		active := "#!/bin/sh\necho systemctl \"$@\" >>" + filepath.Join(m.dir, "calls") + "\n"
		if !ran {
			active += "[ \"$2\" != is-active ]\n"
		}
		if err := os.WriteFile(filepath.Join(m.dir, "systemctl"), []byte(active), 0o755); err != nil {
			t.Fatal(err)
		}

		if calls := m.run("prerm", "remove"); !strings.HasSuffix(calls, "stop trivet-node.service\n") {
			t.Errorf("a removal calls\n%s", calls)
		}
		calls := m.run("postinst", "abort-remove")
		if got := strings.Contains(calls, start); got != ran {
			t.Errorf("ran: %v; an aborted removal calls\n%s", ran, calls)
		}
		if calls := m.run("postrm", "remove"); !strings.Contains(calls, "rm -f "+filepath.Join(m.dir, mark)) {
			t.Errorf("after a removal it would be started by the next installation:\n%s", calls)
		}
	}
}

func TestPurgeLeavesWhatIsNotThePackages(t *testing.T) {
	for _, p := range part.Parts {
		m := newMachine(t, p.Name)
		m.write("etc/trivet/netd.kubeconfig", "")
		calls := m.run("postrm", "purge")
		for _, kept := range []string{
			"/var/lib/trivet/csi", "/var/lib/kubelet", "/var/lib/cni", "/opt/cni", ".sock", ".lock",
		} {
			if strings.Contains(calls, kept) {
				t.Errorf("a purge of %s calls\n%s", p.Name, calls)
			}
		}

		if !strings.Contains(calls, "deb-systemd-helper purge "+p.Service.Unit) {
			t.Errorf("a purge of %s leaves the state of its service:\n%s", p.Name, calls)
		}
	}
}

func TestPurgeOfTheRuntimeKeepsTheStoreThatIsUsed(t *testing.T) {
	for _, c := range []struct {
		what, file, text string
		removes          bool
	}{
		{"nothing runs", "proc/9/comm", "trivet-cri.post\n", true},
		{"a runtime lives", "proc/9/comm", "trivet-cri\n", false},
		{"a monitor lives", "proc/9/comm", "trivet-monitor\n", false},
		{"a pod is left", "run/trivet/cri/sandboxes/records/pod.json", "{}", false},
	} {
		m := newMachine(t, "trivet-cri")
		m.write(c.file, c.text)
		calls := m.run("postrm", "purge")
		if got := strings.Contains(calls, "/var/lib/trivet/cri"); got != c.removes {
			t.Errorf("%s: the store is removed: %v:\n%s", c.what, got, calls)
		}
	}
}

func TestPurgeOfTheNetworkIsForADaemonOfThePackage(t *testing.T) {
	for _, c := range []struct {
		what    string
		files   map[string]string
		removes bool
	}{
		{"it never ran", nil, false},
		{"it ran", map[string]string{"etc/trivet/netd.kubeconfig": ""}, true},
		{"a DaemonSet's runs", map[string]string{
			"etc/trivet/netd.kubeconfig": "",
			"proc/9/comm":                "trivet-netd\n",
		}, false},
	} {
		m := newMachine(t, "trivet-netd")
		for name, text := range c.files {
			m.write(name, text)
		}

		calls := m.run("postrm", "purge")
		conflist := strings.Contains(calls, "10-trivet.conflist")
		routes := strings.Contains(calls, "ip -4 route flush proto 117")
		rules := strings.Contains(calls, "nft delete table bridge policy_trivet")
		if conflist != c.removes || routes != c.removes || rules != c.removes {
			t.Errorf("%s: a purge calls\n%s", c.what, calls)
		}
	}
}

func TestPurgeEndsThoughTheStoreIsAMountPoint(t *testing.T) {
	m := newMachine(t, "trivet-cri")
	if err := os.WriteFile(filepath.Join(m.dir, "rm"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.run("postrm", "purge")
}

func TestUnknownArgumentIsRefused(t *testing.T) {
	for name, script := range newMachine(t, "trivet-cri").scripts {
		out, err := exec.Command("sh", "-c", script, name, "dance").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "'dance'") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

package seat

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/release/installer/swap"
)

// TestRuntimesThatAreNamedElsewhereAreRefused is of agents that would go on with the runtime before, whose
// pods were ended.
func TestRuntimesThatAreNamedElsewhereAreRefused(t *testing.T) {
	const flag = "--container-runtime-endpoint=" + defaultEndpoint
	for name, change := range map[string]func(m *machine){
		"flag of a drop-in": func(m *machine) { m.arguments = append(m.arguments, flag) },
		"flag of a drop-in and of a file": func(m *machine) {
			m.put(extraFlags, "KUBELET_EXTRA_ARGS="+flag+"\n")
			m.arguments = append(m.arguments, flag, flag)
		},
		"flag in a comment": func(m *machine) {
			m.put(extraFlags, "# KUBELET_EXTRA_ARGS="+flag+"\n")
			m.arguments = append(m.arguments, flag)
		},
		"two flags": func(m *machine) {
			m.put(extraFlags, "KUBELET_EXTRA_ARGS=\"--container-runtime-endpoint=unix:///x "+flag+"\"\n")
			m.arguments = append(m.arguments, "--container-runtime-endpoint=unix:///x", flag)
		},
		"another configuration": func(m *machine) { m.arguments = []string{"--config", "/etc/kubelet.yaml"} },
		"drop-in of the configuration": func(m *machine) {
			m.put("/etc/kubelet.d/00-a.conf", "kind: KubeletConfiguration\n")
			m.put("/etc/kubelet.d/50-b.conf", "{\"containerRuntimeEndpoint\": \""+defaultEndpoint+"\"}\n")
			m.arguments = append(m.arguments, "--config-dir=/etc/kubelet.d")
		},
		"trivet-cri of a package": func(m *machine) { m.start(criUnit) },
	} {
		t.Run(name, func(t *testing.T) {
			m, host := newMachine(t)
			change(m)
			before := m.files()

			if _, err := (Runtime{host}).Arrange(t.Context(), "v1", nil); err == nil {
				t.Error("no error")
			} else {
				t.Log(err)
			}
			if diff := cmp.Diff(before, m.files()); diff != "" || len(m.calls) > 0 {
				t.Errorf("calls %q, files:\n%s", m.calls, diff)
			}
		})
	}
}

// TestFlagsComeBackAsTheyWereWritten is of quotes and comments, and of a directory that says nothing.
func TestFlagsComeBackAsTheyWereWritten(t *testing.T) {
	m, host := newMachine(t)
	m.put(extraFlags, "# --container-runtime-endpoint=unix:///old\n"+
		"KUBELET_EXTRA_ARGS=--v=2 --container-runtime-endpoint  '/run/containerd/containerd.sock'\r\n")
	m.put("/etc/kubelet.d/50-b.conf", "maxPods: 7\n")
	m.put("/etc/kubelet.d/README", "containerRuntimeEndpoint: is not said here\n")
	m.arguments = append(m.arguments, "--config-dir", "/etc/kubelet.d",
		"--container-runtime-endpoint", "/run/containerd/containerd.sock")
	before := m.files()

	arrange(t, m, Runtime{host}, "v1")
	const want = "KUBELET_EXTRA_ARGS=--v=2 --container-runtime-endpoint  '" + criEndpoint + "'\r\n"
	if got := m.read(extraFlags); !strings.HasSuffix(got, want) || !strings.Contains(got, "unix:///old") {
		t.Errorf("flags %q", got)
	}

	arrange(t, m, Runtime{host}, swap.Out)
	if diff := cmp.Diff(before, m.files()); diff != "" {
		t.Errorf("files:\n%s", diff)
	}
}

// TestConfigurationBehindALinkStaysThere has the mode of the file, too.
func TestConfigurationBehindALinkStaysThere(t *testing.T) {
	m, host := newMachine(t)
	const target = "/etc/kubernetes/kubelet.yaml"
	m.put(target, kubeletConfig)
	err := os.Chmod(m.root+target, 0o640)
	if err == nil {
		err = os.Remove(m.root + agentConfig)
	}
	if err == nil {
		err = os.Symlink("../../../etc/kubernetes/kubelet.yaml", m.root+agentConfig)
	}
	if err != nil {
		t.Fatal(err)
	}

	arrange(t, m, Runtime{host}, "v1")
	if got := m.read(target); !strings.Contains(got, criEndpoint) {
		t.Errorf("configuration %q", got)
	}
	arrange(t, m, Runtime{host}, swap.Out)
	info, err := os.Stat(m.root + target)
	if err != nil || info.Mode().Perm() != 0o640 || m.read(target) != kubeletConfig {
		t.Errorf("mode %v, %v, configuration %q", info.Mode(), err, m.read(target))
	}
	if _, err := os.Readlink(m.root + agentConfig); err != nil {
		t.Error(err)
	}
}

// TestAgentIsTheOneThatRuns is of a trivet-node that somebody tries out while kubelet is enabled.
func TestAgentIsTheOneThatRuns(t *testing.T) {
	m, host := newMachine(t)
	m.stop(kubeletUnit)
	m.start(nodeUnit)
	arrange(t, m, Runtime{host}, "v1")
	if m.unit(kubeletUnit).active || !m.unit(nodeUnit).active {
		t.Errorf("services %q", m.alive())
	}
}

// TestRuntimeThatIsNotEnabledIsOnlyStopped is of one whose links are not those of enable.
func TestRuntimeThatIsNotEnabledIsOnlyStopped(t *testing.T) {
	m, host := newMachine(t)
	m.unit("containerd.service").enabled = false
	arrange(t, m, Runtime{host}, "v1")
	calls := strings.Join(m.calls, "\n")
	if m.unit("containerd.service").active || strings.Contains(calls, "disable containerd") {
		t.Errorf("calls:\n%s", calls)
	}
}

// TestProgramsBehindALinkAreTheirs is of machines whose /usr is read-only, and /usr/local elsewhere.
func TestProgramsBehindALinkAreTheirs(t *testing.T) {
	m, host := newMachine(t)
	const elsewhere = "/var/usrlocal"
	for _, dir := range []string{elsewhere, "/usr"} {
		if err := os.MkdirAll(m.root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../var/usrlocal", m.root+"/usr/local"); err != nil {
		t.Fatal(err)
	}
	m.unit(criUnit).starts = func() string { return elsewhere + "/bin/trivet-cri" }
	arrange(t, m, Runtime{host}, "v1")
	if process, err := (Runtime{host}).Check(t.Context(), "v1"); err != nil || process == 0 {
		t.Errorf("process %d, %v", process, err)
	}
}

// TestStoreOnADiskOfItsOwnIsEmptied is of a directory that is not trivet's: a link to it here.
func TestStoreOnADiskOfItsOwnIsEmptied(t *testing.T) {
	m, host := newMachine(t)
	for _, dir := range []string{"/disk", filepath.Dir(criStore)} {
		if err := os.MkdirAll(m.root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../../../disk", m.root+criStore); err != nil {
		t.Fatal(err)
	}

	arrange(t, m, Runtime{host}, "v1")
	m.put(criStore+"/images/a", "x")
	arrange(t, m, Runtime{host}, swap.Out)
	left, err := os.ReadDir(m.root + "/disk")
	if err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if _, err := os.Readlink(m.root + criStore); err != nil {
		t.Error(err)
	}
}

// TestWhatKilledWritersLeftGoes is of temporary files beside those that were written.
func TestWhatKilledWritersLeftGoes(t *testing.T) {
	m, host := newMachine(t)
	before := m.files()
	for _, path := range []string{criProgram, criUnitPath, agentConfig, kubeadmFlags} {
		m.put(filepath.Join(filepath.Dir(path), ".tmp-"+filepath.Base(path)+"-17"), "x")
	}
	arrange(t, m, Runtime{host}, "v1")
	for _, path := range []string{monitorPath, crictlConfig, instanceConfig} {
		m.put(filepath.Join(filepath.Dir(path), ".tmp-"+filepath.Base(path)+"-18"), "x")
	}
	arrange(t, m, Runtime{host}, swap.Out)
	if diff := cmp.Diff(before, m.files()); diff != "" {
		t.Errorf("files:\n%s", diff)
	}
}

// TestClockThatIsSetBackKeepsNoAgentAway is of a second that comes an hour late.
func TestClockThatIsSetBackKeepsNoAgentAway(t *testing.T) {
	_, host := newMachine(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := host.sleepUntil(ctx, time.Now().Add(time.Hour)); err != nil {
		t.Error(err)
	}
}

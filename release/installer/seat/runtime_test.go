package seat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/release/installer/swap"
)

// arrange gives a seat to a state and settles it; calls that are killed are made again.
func arrange(t *testing.T, m *machine, s swap.Seat, to swap.State) swap.Outage {
	t.Helper()
	for range 100 {
		ctx, kill := context.WithCancel(t.Context())
		m.kill = kill
		outage, err := s.Arrange(ctx, to, nil)
		if err == nil {
			err = s.Settle(ctx, to)
		}
		kill()
		if err == nil {
			return outage
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}

	t.Fatal("it does not end")
	return swap.Outage{}
}

func TestRuntimeComesAndTheNodeIsAsBeforeWhenItGoes(t *testing.T) {
	m, host := newMachine(t)
	before, alive := m.files(), m.alive()
	r := Runtime{host}

	if outage := arrange(t, m, r, "v1"); outage.Stopped.IsZero() || outage.Started.Before(outage.Stopped) {
		t.Errorf("outage %+v", outage)
	}
	for path, want := range map[string]string{
		agentConfig:    "containerRuntimeEndpoint: unix:///run/trivet/cri.sock\n",
		instanceConfig: "containerRuntimeEndpoint: unix:///run/trivet/cri.sock\n",
		crictlConfig:   "runtime-endpoint: unix:///run/trivet/cri.sock\n",
		criConfig:      "# defaults\n",
		criProgram:     "# v1\n",
	} {
		if got := m.read(path); !strings.Contains(got, want) {
			t.Errorf("%s is %q, want %q in it", path, got, want)
		}
	}
	want := []string{
		"kubelet.service active=true enabled=true",
		"trivet-cri.service active=true enabled=true",
	}
	if diff := cmp.Diff(want, m.alive()); diff != "" {
		t.Errorf("services:\n%s", diff)
	}
	if left := m.runtimes["containerd.service"].has(); len(left) > 0 {
		t.Errorf("containerd has pods: %q", left)
	}

	m.runtimes[criUnit].pods["web"] = true
	arrange(t, m, r, swap.Out)
	if diff := cmp.Diff(before, m.files()); diff != "" {
		t.Errorf("files:\n%s", diff)
	}
	if diff := cmp.Diff(alive, m.alive()); diff != "" {
		t.Errorf("services:\n%s", diff)
	}
}

// TestKillsOfTheRuntimesExchange ends it at each call of systemd, on the way in and on the way out.
func TestKillsOfTheRuntimesExchange(t *testing.T) {
	const most = 30
	for at := 1; at <= most; at++ {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			m, host := newMachine(t)
			before, alive := m.files(), m.alive()
			m.killAt = at
			arrange(t, m, Runtime{host}, "v1")
			if !m.unit(criUnit).active || m.unit("containerd.service").active || !m.unit(kubeletUnit).active {
				t.Errorf("in: services %q", m.alive())
			}

			m.killAt = len(m.calls) + at
			arrange(t, m, Runtime{host}, swap.Out)
			if diff := cmp.Diff(before, m.files()); diff != "" {
				t.Errorf("out: files:\n%s", diff)
			}
			if diff := cmp.Diff(alive, m.alive()); diff != "" {
				t.Errorf("out: services:\n%s", diff)
			}
		})
	}
}

func TestNewVersionOfTheRuntimeLeavesTheAgentAndPodsAlone(t *testing.T) {
	m, host := newMachine(t)
	arrange(t, m, Runtime{host}, "v1")
	m.runtimes[criUnit].pods["web"] = true
	m.calls = nil

	// What runs is not what is on disk any more.
	m.unit(criUnit).program += " (deleted)"
	outage := arrange(t, m, Runtime{host}, "v2")
	if !outage.Stopped.IsZero() || !strings.Contains(m.read(criProgram), "v2") {
		t.Errorf("outage %+v, program %q", outage, m.read(criProgram))
	}

	calls := strings.Join(m.calls, "\n")
	restarted := strings.Contains(calls, "restart trivet-cri.service")
	if !restarted || strings.Contains(calls, "stop kubelet.service") {
		t.Errorf("calls:\n%s", calls)
	}
	if pods := m.runtimes[criUnit].has(); len(pods) != 1 {
		t.Errorf("pods %q", pods)
	}
}

func TestContainersThatDoNotEndAreAnErrorAndTheNodeGoesBack(t *testing.T) {
	m, host := newMachine(t)
	before, alive := m.files(), m.alive()
	m.runtimes["containerd.service"].immortal = true
	_, err := Runtime{host}.Arrange(t.Context(), "v1", nil)
	if err == nil || !strings.Contains(err.Error(), "1 containers run") {
		t.Fatalf("error %v", err)
	}
	if !m.unit(kubeletUnit).active || m.killed > 0 {
		t.Errorf("the node has no agent until the next try, or processes were killed (%d)", m.killed)
	}

	arrange(t, m, Runtime{host}, swap.Out)
	if diff := cmp.Diff(before, m.files()); diff != "" {
		t.Errorf("files:\n%s", diff)
	}
	if diff := cmp.Diff(alive, m.alive()); diff != "" {
		t.Errorf("services:\n%s", diff)
	}
	got := m.runtimes["containerd.service"].stopped
	if len(got) != 1 || got[0] != "web-container within 4 s" {
		t.Errorf("stopped %q", got)
	}
}

func TestSandboxesThatDoNotGoAreNoReasonToStop(t *testing.T) {
	m, host := newMachine(t)
	for _, runtime := range m.runtimes {
		runtime.stuck = true
	}
	arrange(t, m, Runtime{host}, "v1")
	if !m.unit(kubeletUnit).active || m.unit("containerd.service").active {
		t.Errorf("in: services %q", m.alive())
	}

	m.runtimes[criUnit].pods["web"] = true
	arrange(t, m, Runtime{host}, swap.Out)
	if !m.unit(kubeletUnit).active || m.unit(criUnit).active || m.killed > 0 {
		t.Errorf("out: services %q, killed %d times", m.alive(), m.killed)
	}
}

// TestRuntimeThatDoesNotAnswerKeepsTheSeat is of one whose pods might run on beside those of the next.
func TestRuntimeThatDoesNotAnswerKeepsTheSeat(t *testing.T) {
	m, host := newMachine(t)
	m.runtimes["containerd.service"].mute = true
	_, err := Runtime{host}.Arrange(t.Context(), "v1", nil)
	if err == nil || !strings.Contains(err.Error(), "it hangs") {
		t.Fatalf("error %v", err)
	}
	if calls := strings.Join(m.calls, "\n"); strings.Contains(calls, "stop kubelet.service") {
		t.Errorf("calls:\n%s", calls)
	}
	if !strings.Contains(m.read(agentConfig), "containerd.sock") {
		t.Errorf("configuration %q", m.read(agentConfig))
	}
}

func TestPodsOfARuntimeThatIsDeadAreKilledBeforeItGoes(t *testing.T) {
	m, host := newMachine(t)
	arrange(t, m, Runtime{host}, "v1")
	m.runtimes[criUnit].pods["web"] = true
	m.runtimes[criUnit].mute = true
	m.calls = nil
	arrange(t, m, Runtime{host}, swap.Out)

	calls := strings.Join(m.calls, "\n")
	if m.killed != 1 || !strings.Contains(calls, "restart trivet-cri.service") {
		t.Errorf("killed %d times, calls:\n%s", m.killed, calls)
	}
	if !m.unit(kubeletUnit).active || len(m.runtimes[criUnit].pods) > 0 {
		t.Errorf("services %q", m.alive())
	}
}

func TestContainersThatDoNotEndAreKilledOnTheWayOut(t *testing.T) {
	m, host := newMachine(t)
	arrange(t, m, Runtime{host}, "v1")
	m.runtimes[criUnit].pods["web"] = true
	m.runtimes[criUnit].immortal = true
	arrange(t, m, Runtime{host}, swap.Out)
	if m.killed != 1 || !m.unit(kubeletUnit).active {
		t.Errorf("killed %d times, services %q", m.killed, m.alive())
	}
}

func TestRecordsOfContainersThatLiveStay(t *testing.T) {
	for name, live := range map[string]func(*machine){
		"by CRI":      func(m *machine) { m.runtimes[criUnit].pods["web"] = true },
		"by the root": func(m *machine) { m.using = []int{42} },
	} {
		t.Run(name, func(t *testing.T) {
			m, host := newMachine(t)
			arrange(t, m, Runtime{host}, "v1")
			const record = "/var/lib/trivet/cri/record"
			m.put(record, "x")
			live(m)
			if err := (Runtime{host}).Settle(t.Context(), swap.Out); err == nil {
				t.Error("no error")
			}
			if m.read(record) != "x" || !m.unit(criUnit).active {
				t.Errorf("services %q", m.alive())
			}
		})
	}
}

// TestAgentThatIsNotEnabledIsStartedAgain is of one that runs, was stopped by an exchange, and cannot be
// found any more when that is killed.
func TestAgentThatIsNotEnabledIsStartedAgain(t *testing.T) {
	for at := 1; at <= 10; at++ {
		m, host := newMachine(t)
		m.unit(kubeletUnit).enabled = false
		m.killAt = at
		ctx, kill := context.WithCancel(t.Context())
		m.kill = kill
		if _, err := (Runtime{host}).Arrange(ctx, "v1", nil); err == nil {
			kill()
		}
		kill()
		arrange(t, m, Runtime{host}, swap.Out)
		if !m.unit(kubeletUnit).active {
			t.Errorf("call %d: calls %q", at, m.calls)
		}
	}
}

// TestOldProcessThatStillAnswersIsNotTheNewOne is of a restart that takes its time.
func TestOldProcessThatStillAnswersIsNotTheNewOne(t *testing.T) {
	m, host := newMachine(t)
	arrange(t, m, Runtime{host}, "v1")
	old := m.unit(criUnit).process
	m.unit(criUnit).program += " (deleted)"
	m.late = 4
	if _, err := (Runtime{host}).Arrange(t.Context(), "v2", nil); err != nil {
		t.Fatal(err)
	}
	if now := m.unit(criUnit).process; now == old || m.soon != nil {
		t.Errorf("process %d, was %d", now, old)
	}

	process, err := Runtime{host}.Check(t.Context(), "v2")
	if err != nil || process != m.unit(criUnit).process {
		t.Errorf("process %d, %v", process, err)
	}
}

func TestProcessOfTheWayOutIsThatOfTheRuntimeBefore(t *testing.T) {
	m, host := newMachine(t)
	process, err := Runtime{host}.Check(t.Context(), swap.Out)
	if err != nil || process != m.unit(kubeletUnit).process {
		t.Errorf("before: process %d, %v", process, err)
	}
	arrange(t, m, Runtime{host}, "v1")
	m.start("containerd.service")
	process, err = Runtime{host}.Check(t.Context(), swap.Out)
	if err != nil || process != m.unit("containerd.service").process {
		t.Errorf("after: process %d, %v", process, err)
	}
}

func TestVersionThatDoesNotStartIsAnError(t *testing.T) {
	m, host := newMachine(t)
	arrange(t, m, Runtime{host}, "v1")
	m.unit(criUnit).program += " (deleted)"
	m.late = 1 << 20
	if _, err := (Runtime{host}).Arrange(t.Context(), "v2", nil); err == nil {
		t.Error("no error")
	}
}

func TestChangedUnitOrConfigurationStartsTheRuntimeAgain(t *testing.T) {
	for _, name := range []string{"trivet-cri.service", "cri.toml"} {
		m, host := newMachine(t)
		arrange(t, m, Runtime{host}, "v1")
		m.calls = nil
		arrange(t, m, Runtime{host}, "v1")
		if calls := strings.Join(m.calls, " "); strings.Contains(calls, "restart") {
			t.Errorf("%s: calls %s", name, calls)
		}

		m.putPayload(host, "v1", name, "# another\n")
		arrange(t, m, Runtime{host}, "v1")
		if calls := strings.Join(m.calls, " "); !strings.Contains(calls, "restart "+criUnit) {
			t.Errorf("%s: calls %s", name, calls)
		}
	}
}

func TestConfigurationThatWasEditedSinceStays(t *testing.T) {
	m, host := newMachine(t)
	arrange(t, m, Runtime{host}, "v1")
	m.put(criConfig, "oci_runtime = \"runc\"\n")
	m.put(crictlConfig, "runtime-endpoint: "+criEndpoint+"\ntimeout: 10\n")
	arrange(t, m, Runtime{host}, "v2")
	if got := m.read(criConfig); got != "oci_runtime = \"runc\"\n" {
		t.Errorf("configuration %q", got)
	}
	if got := m.read(crictlConfig); !strings.Contains(got, "timeout") {
		t.Errorf("configuration of crictl %q", got)
	}
}

// TestConfigurationThatCannotBeWrittenStopsNothing is of one that is found before the agent is stopped.
func TestConfigurationThatCannotBeWrittenStopsNothing(t *testing.T) {
	m, host := newMachine(t)
	m.put(instanceConfig, "containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\nx: [\n")
	if _, err := (Runtime{host}).Arrange(t.Context(), "v1", nil); err == nil {
		t.Fatal("no error")
	}
	calls := strings.Join(m.calls, "\n")
	if strings.Contains(calls, "stop kubelet.service") || strings.Contains(m.read(agentConfig), criEndpoint) {
		t.Errorf("calls:\n%s\nconfiguration %q", calls, m.read(agentConfig))
	}
}

func TestRuntimeThatOthersUseRunsOn(t *testing.T) {
	m, host := newMachine(t)
	m.unit("docker.service").active = true
	arrange(t, m, Runtime{host}, "v1")
	if s := m.unit("containerd.service"); !s.active || !s.enabled {
		t.Errorf("containerd %+v", s)
	}
}

func TestAdministratorsConfigurationStays(t *testing.T) {
	m, host := newMachine(t)
	m.put(criConfig, "oci_runtime = \"runc\"\n")
	arrange(t, m, Runtime{host}, "v1")
	arrange(t, m, Runtime{host}, swap.Out)
	if got := m.read(criConfig); got != "oci_runtime = \"runc\"\n" {
		t.Errorf("configuration %q", got)
	}
}

func TestNodesOfKindLoadImagesByCtr(t *testing.T) {
	m, host := newMachine(t)
	if err := os.Mkdir(m.root+kindDirectory, 0o755); err != nil {
		t.Fatal(err)
	}

	arrange(t, m, Runtime{host}, "v1")
	if target, err := os.Readlink(m.root + ctrLink); err != nil || target != criProgram {
		t.Errorf("link %q, %v", target, err)
	}
	arrange(t, m, Runtime{host}, swap.Out)
	if _, err := os.Lstat(m.root + ctrLink); err == nil {
		t.Error("the link is left")
	}
}

func TestMachinesThatAreNotOfKubeadmAreRefusedBeforeAnythingChanges(t *testing.T) {
	for name, change := range map[string]func(m *machine){
		"no agent":   func(m *machine) { *m.unit(kubeletUnit) = service{} },
		"no runtime": func(m *machine) { m.stop("containerd.service") },
		"trivet-cri": func(m *machine) { m.put(agentConfig, "containerRuntimeEndpoint: "+criEndpoint+"\n") },
	} {
		t.Run(name, func(t *testing.T) {
			m, host := newMachine(t)
			change(m)
			before := m.files()
			if _, err := (Runtime{host}).Arrange(t.Context(), "v1", nil); err == nil {
				t.Error("no error")
			}
			if diff := cmp.Diff(before, m.files()); diff != "" {
				t.Errorf("files:\n%s", diff)
			}
			if len(m.calls) > 0 {
				t.Errorf("calls %q", m.calls)
			}
		})
	}
}

package seat

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/release/installer/swap"
)

func TestAgentRunsWithTheArgumentsOfKubelet(t *testing.T) {
	m, host := newMachine(t)
	before, alive := m.files(), m.alive()
	outage := arrange(t, m, Agent{host}, "v1")
	if outage.Stopped.IsZero() || m.unit(kubeletUnit).program != nodeProgram {
		t.Errorf("outage %+v, program %q", outage, m.unit(kubeletUnit).program)
	}

	const want = "ExecStart=\nExecStart=/usr/local/bin/trivet-node $KUBELET_CONFIG_ARGS $TRIVET_NODE_ARGS\n"
	got := m.read(nodeDropIn)
	if !strings.Contains(got, want) || !strings.Contains(got, "Type=notify\nKillMode=process\n") {
		t.Errorf("drop-in:\n%s", got)
	}

	arrange(t, m, Agent{host}, swap.Out)
	if diff := cmp.Diff(before, m.files()); diff != "" {
		t.Errorf("files:\n%s", diff)
	}
	if diff := cmp.Diff(alive, m.alive()); diff != "" || m.unit(kubeletUnit).program != "/usr/bin/kubelet" {
		t.Errorf("services:\n%s", diff)
	}
}

func TestNewVersionOfTheAgentIsStarted(t *testing.T) {
	m, host := newMachine(t)
	arrange(t, m, Agent{host}, "v1")
	m.unit(kubeletUnit).program += " (deleted)"
	outage := arrange(t, m, Agent{host}, "v2")
	service := m.unit(kubeletUnit)
	if outage.Stopped.IsZero() || m.read(nodeProgram) != "node v2" || service.program != nodeProgram {
		t.Errorf("outage %+v, service %+v", outage, service)
	}
}

func TestKillsOfTheAgentsExchange(t *testing.T) {
	for at := 1; at <= 8; at++ {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			m, host := newMachine(t)
			before, alive := m.files(), m.alive()
			m.killAt = at
			arrange(t, m, Agent{host}, "v1")
			if s := m.unit(kubeletUnit); !s.active || s.program != nodeProgram {
				t.Errorf("in: %+v", s)
			}

			m.killAt = len(m.calls) + at
			arrange(t, m, Agent{host}, swap.Out)
			if diff := cmp.Diff(before, m.files()); diff != "" {
				t.Errorf("out: files:\n%s", diff)
			}
			if diff := cmp.Diff(alive, m.alive()); diff != "" {
				t.Errorf("out: services:\n%s", diff)
			}
			if program := m.unit(kubeletUnit).program; program != "/usr/bin/kubelet" {
				t.Errorf("out: program %s", program)
			}
		})
	}
}

func TestDropInThatWasEditedGoesNevertheless(t *testing.T) {
	m, host := newMachine(t)
	before := m.files()
	arrange(t, m, Agent{host}, "v1")
	m.put(nodeDropIn, m.read(nodeDropIn)+"OOMScoreAdjust=0\n")
	arrange(t, m, Agent{host}, swap.Out)
	if diff := cmp.Diff(before, m.files()); diff != "" || m.unit(kubeletUnit).program != "/usr/bin/kubelet" {
		t.Errorf("program %s, files:\n%s", m.unit(kubeletUnit).program, diff)
	}
}

func TestAgentOfAPackageIsLeftAlone(t *testing.T) {
	m, host := newMachine(t)
	m.unit(nodeUnit).active = true
	_, err := Agent{host}.Arrange(t.Context(), "v1", nil)
	if err == nil || !strings.Contains(err.Error(), "not by this installer") {
		t.Errorf("error %v", err)
	}
}

func TestDropInThatAnotherOverridesIsRefused(t *testing.T) {
	m, host := newMachine(t)
	m.starts = "/usr/bin/kubelet"
	_, err := Agent{host}.Arrange(t.Context(), "v1", nil)
	if err == nil || !strings.Contains(err.Error(), "another drop-in") {
		t.Errorf("error %v", err)
	}
	if calls := strings.Join(m.calls, " "); strings.Contains(calls, "stop") {
		t.Errorf("calls %s", calls)
	}
}

func TestAgentThatRunsAnotherProgramIsNotTheOneThatWasBrought(t *testing.T) {
	m, host := newMachine(t)
	arrange(t, m, Agent{host}, "v1")
	process, err := Agent{host}.Check(t.Context(), "v1")
	if err != nil || process == 0 {
		t.Errorf("process %d, %v", process, err)
	}
	m.unit(kubeletUnit).program = "/usr/bin/kubelet"
	if _, err := (Agent{host}).Check(t.Context(), "v1"); err == nil {
		t.Error("no error")
	}
}

// TestAgentsAreToldApartByTheSecond is of statuses of nodes, whose times are whole seconds.
func TestAgentsAreToldApartByTheSecond(t *testing.T) {
	m, host := newMachine(t)
	host.second = 100 * time.Millisecond
	outage := arrange(t, m, Agent{host}, "v1")
	next := outage.Stopped.Truncate(host.second).Add(host.second)
	if outage.Started.Before(next) {
		t.Errorf("outage %+v is within one second", outage)
	}

	ctx, kill := context.WithCancel(t.Context())
	kill()
	if err := host.lateInSecond(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

package main

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/program"
)

func TestVerbsThatCannotBeDoneAreUsageErrors(t *testing.T) {
	for _, line := range []string{
		"kill node1", "reboot", "agent", "cni node1", "fly node1", "exec node1", "install kind",
	} {
		words := strings.Fields(line)
		s := &session{Env: &program.Env{}, Cluster: &cluster.Cluster{Dir: t.TempDir()}, args: words[1:]}
		err := s.do(t.Context(), words[0])
		if _, ok := errors.AsType[*program.UsageError](err); !ok {
			t.Errorf("%s: %v, want a UsageError", line, err)
		}
	}
}

func TestStatusShowsHowADaemonEnded(t *testing.T) {
	var out strings.Builder
	printDaemons(&out, "node1", []machine.State{
		{Name: "trivet-cri", Pid: 7, HostPid: os.Getpid()},
		{Name: "trivet-node", Exit: "signal killed"},
	})

	lines := strings.Split(out.String(), "\n")
	if !strings.HasPrefix(lines[0], "node1\ttrivet-cri\t") || !strings.HasSuffix(lines[0], "\trunning") {
		t.Errorf("a daemon that runs: %q", lines[0])
	}
	if lines[1] != "node1\ttrivet-node\t0\t-\tsignal killed" {
		t.Errorf("one that ended: %q", lines[1])
	}
}

func TestStatusWithoutAClusterSaysSo(t *testing.T) {
	s := &session{Env: &program.Env{}, Cluster: &cluster.Cluster{Dir: t.TempDir()}}
	if err := s.status(); err == nil || !strings.Contains(err.Error(), "no cluster is up") {
		t.Errorf("error %v", err)
	}
}

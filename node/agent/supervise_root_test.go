package agent

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trivet-node/trivet/internal/supervisor"
	"github.com/trivet-node/trivet/internal/supervisor/supervisortest"
)

// kubeadm and dpkg wait for the start of the service, and the runtime may be installed after it.
func TestTheServiceManagerHearsOfTheAgentBeforeTheRuntimeAnswers(t *testing.T) {
	manager := supervisortest.New(t, time.Second)
	by, err := supervisor.FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}

	n := newTestNode(t)
	n.supervisor = by
	n.runtime.FailOn("Version", status.Error(codes.Unavailable, "not yet"))
	stop := n.start()
	manager.Await("READY=1\nSTATUS=waiting for the container runtime")
	manager.Await("WATCHDOG=1")

	n.runtime.FailOn("Version", nil)
	manager.Await("READY=1\nSTATUS=runs node n on ")
	manager.Await("WATCHDOG=1")
	manager.Await("WATCHDOG=1")
	if err := stop(); err != nil {
		t.Error(err)
	}
}

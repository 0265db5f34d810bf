package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/cri/nodetest"
	"github.com/trivet-node/trivet/internal/supervisor/supervisortest"
)

// What NOTIFY_SOCKET names would be passed on to containers by crun and runc.
func TestTheServiceManagerHearsOfTheServerAndNotOfTheMonitor(t *testing.T) {
	manager := supervisortest.New(t, time.Second)
	n := nodetest.New(t)
	manager.Await("READY=1\nSTATUS=serving CRI on " + n.Dir)
	manager.Await("WATCHDOG=1")
	manager.Await("WATCHDOG=1")

	monitors := n.Monitors()
	if len(monitors) != 1 {
		t.Fatalf("monitors %v", monitors)
	}

	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", monitors[0]))
	if err != nil {
		t.Fatal(err)
	}
	for assignment := range strings.SplitSeq(string(environment), "\x00") {
		if strings.HasPrefix(assignment, "NOTIFY_") || strings.HasPrefix(assignment, "WATCHDOG_") {
			t.Errorf("trivet-monitor has inherited %s", assignment)
		}
	}
}

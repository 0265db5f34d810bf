package main

import (
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/supervisor/supervisortest"
)

func TestTheServiceManagerHearsThatTheDaemonRuns(t *testing.T) {
	manager := supervisortest.New(t, time.Second)
	w := newWorld(t)
	w.start()
	manager.Await("READY=1\nSTATUS=keeping the network of this node")
	manager.Await("WATCHDOG=1")
	manager.Await("WATCHDOG=1")
}

package main

import (
	"syscall"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/supervisor/supervisortest"
)

func TestTheServiceManagerHearsThatTheDriverServes(t *testing.T) {
	manager := supervisortest.New(t, time.Second)
	p := newProcess(t)
	manager.Await("READY=1\nSTATUS=serving CSI on " + p.dir)
	manager.Await("WATCHDOG=1")
	manager.Await("WATCHDOG=1")
	p.end(syscall.SIGTERM)
}

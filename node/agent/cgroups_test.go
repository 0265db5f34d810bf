package agent

import (
	"errors"
	"testing"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/systemd"
)

func TestSystemdDriverIsRefusedWhereSystemdDoesNotRun(t *testing.T) {
	_, err := slicesOf("systemd")
	if _, refused := errors.AsType[*program.CantRunError](err); refused == systemd.Running() {
		t.Errorf("systemd runs %v: %v", systemd.Running(), err)
	}
	if _, err := slicesOf("cgroupfs"); err != nil {
		t.Error(err)
	}
}

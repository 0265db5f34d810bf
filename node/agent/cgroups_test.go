package agent

import (
	"errors"
	"testing"

	"github.com/trivet-node/trivet/internal/program"
)

func TestSystemdDriverIsRefusedWhereSystemdDoesNotRun(t *testing.T) {
	for _, c := range []struct {
		driver  string
		running bool
		slices  bool
		refused bool
	}{
		{"systemd", true, true, false},
		{"systemd", false, false, true},
		{"cgroupfs", true, true, false},
		{"cgroupfs", false, false, false},
	} {
		got, err := slicesFor(c.driver, c.running)
		_, refused := errors.AsType[*program.CantRunError](err)
		if refused != c.refused || (got != nil) != c.slices {
			t.Errorf("driver %s, systemd runs %v: %v, %v", c.driver, c.running, got, err)
		}
	}
}

package ociruntime_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestWhatIsNotThereIsDeletedAndHasNoState(t *testing.T) {
	testenv.Root(t)
	for _, name := range []string{"crun", "runc"} {
		t.Run(name, func(t *testing.T) {
			var runner ociruntime.Runner
			rt := ociruntime.Runtime{Program: testenv.Program(t, name, name), Root: t.TempDir()}
			for range 2 {
				if err := runner.Delete(t.Context(), rt, "absent"); err != nil {
					t.Error(err)
				}
			}

			if _, err := runner.State(t.Context(), rt, "absent"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("state: %v", err)
			}

			err := runner.Start(t.Context(), rt, "absent")
			if err == nil || !strings.Contains(err.Error(), name+" start absent: ") {
				t.Errorf("start: %v", err)
			}
		})
	}
}

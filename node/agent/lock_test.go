package agent

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/internal/program"
)

func TestSecondAgentIsRefused(t *testing.T) {
	root := filepath.Join(t.TempDir(), "kubelet")
	first, err := lock(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}

	if _, err := lock(t.Context(), root); err == nil {
		t.Fatal("two agents hold one root directory")
	} else if _, ok := errors.AsType[*program.CantRunError](err); !ok {
		t.Errorf("second agent: %v, want an error that says what to do", err)
	}

	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	second, err := lock(t.Context(), root)
	if err != nil {
		t.Fatalf("after the first agent has ended: %v", err)
	}

	second.Close()
}

package main

import (
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestCallsAreShownByTheirMedian(t *testing.T) {
	took := []time.Duration{3 * time.Millisecond, time.Millisecond, 2500 * time.Microsecond}
	if got := row(took); got != "2.5 (1.0, 3.0)" {
		t.Errorf("row %s", got)
	}
}

func TestServerIsReadyWithoutTheConditionsOfOthers(t *testing.T) {
	conditions := []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true},
		{Type: runtimeapi.NetworkReady, Status: true},
		{Type: "ContainerdHasNoDeprecationWarnings"},
	}
	if err := notReady(conditions); err != nil {
		t.Error(err)
	}

	conditions[1].Status = false
	if notReady(conditions) == nil {
		t.Error("a server without a network is ready")
	}
}

func TestSlowCallsAreMadeAFewTimes(t *testing.T) {
	for _, c := range calls {
		if got := c.rounds(15); (got == 3) != c.slow {
			t.Errorf("%s: %d rounds", c.name, got)
		}
		if got := c.rounds(2); got != 2 {
			t.Errorf("%s: %d rounds of 2", c.name, got)
		}
	}
}

package container

import (
	"context"
	"errors"
	"testing"
)

func TestRemovalWaitsForTheCreationsOfItsSandboxOnly(t *testing.T) {
	var c pending
	first := c.begin("a")
	second := c.begin("a")
	gaveUp, cancel := context.WithCancel(t.Context())
	cancel()

	if err := c.wait(gaveUp, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("with two in flight: %v, want context.Canceled", err)
	}
	if err := c.wait(gaveUp, "b"); err != nil {
		t.Errorf("sandbox without a creation: %v", err)
	}

	first()
	if err := c.wait(gaveUp, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("with one in flight: %v, want context.Canceled", err)
	}

	waited := make(chan error)
	go func() { waited <- c.wait(t.Context(), "a") }()
	second()
	if err := <-waited; err != nil {
		t.Errorf("after the last one: %v", err)
	}
	if len(c.count) > 0 || len(c.none) > 0 {
		t.Errorf("it still counts %v, %v", c.count, c.none)
	}
}

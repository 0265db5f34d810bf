package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/supervisor/supervisortest"
)

func fromEnvironment(t *testing.T) Supervisor {
	t.Helper()
	s, err := FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReadinessIsReportedInOneMessage(t *testing.T) {
	manager := supervisortest.New(t, 0)
	fromEnvironment(t).Ready(slog.New(slog.DiscardHandler), "serving CRI\nWATCHDOG=trigger")
	if got := manager.Next(); got != "READY=1\nSTATUS=serving CRI WATCHDOG=trigger" {
		t.Errorf("message %q", got)
	}
}

func TestChildrenDoNotInheritTheSupervisor(t *testing.T) {
	supervisortest.New(t, time.Second)
	fromEnvironment(t)
	for _, assignment := range os.Environ() {
		if strings.HasPrefix(assignment, "NOTIFY_") || strings.HasPrefix(assignment, "WATCHDOG_") {
			t.Errorf("%s is still there", assignment)
		}
	}
	if s := fromEnvironment(t); s != (Supervisor{}) {
		t.Errorf("a child has %+v", s)
	}
}

// TestASignOfLifeIsWhatACheckHasFound has a check that answers when the test says so. One that has no answer
// in time fails like one that hangs. What it fails with is said once.
func TestASignOfLifeIsWhatACheckHasFound(t *testing.T) {
	manager := supervisortest.New(t, 40*time.Millisecond)
	s := fromEnvironment(t)

	results := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)

		s.Watch(ctx, slog.New(slog.DiscardHandler), func(ctx context.Context) error {
			select {
			case err := <-results:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()

	manager.Await("STATUS=context deadline exceeded")
	results <- nil
	manager.Await("WATCHDOG=1")
	manager.Await("STATUS=context deadline exceeded")
	results <- errors.New("no answer")
	results <- nil
	manager.Await("WATCHDOG=1")

	cancel()
	<-ended
}

func TestAProcessWithoutASupervisorReportsToNobody(t *testing.T) {
	var s Supervisor
	var logged strings.Builder
	log := slog.New(slog.NewTextHandler(&logged, nil))
	s.Ready(log, "x")
	s.Alive(log)
	if logged.Len() > 0 {
		t.Error(logged.String())
	}

	s.Watch(t.Context(), log, func(context.Context) error {
		t.Error("somebody checks")
		return nil
	})
}

func TestAnEnvironmentThatCannotBeUnderstoodIsAnError(t *testing.T) {
	for name, variable := range map[string][2]string{
		"relative path":    {socketVariable, "notify"},
		"not a number":     {patienceVariable, "soon"},
		"a number too far": {patienceVariable, "9223372036854775807"},
		"negative":         {patienceVariable, "-1"},
	} {
		t.Run(name, func(t *testing.T) {
			supervisortest.New(t, 0)
			t.Setenv(variable[0], variable[1])
			if s, err := FromEnvironment(); err == nil || s.patience != 0 {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

func TestTheWatchdogOfAnotherProcessIsNotFed(t *testing.T) {
	supervisortest.New(t, time.Second)
	t.Setenv(processVariable, strconv.Itoa(os.Getppid()))
	if s := fromEnvironment(t); s.patience != 0 || s.socket == "" {
		t.Errorf("%+v", s)
	}
}

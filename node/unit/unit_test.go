package unit

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestASliceIsStartedAndStopped(t *testing.T) {
	s, slices := newSystemd(t)
	if err := slices.Ensure(t.Context(), "a.slice", []Property{{"TasksMax", uint64(10)}}); err != nil {
		t.Fatal(err)
	}
	if err := slices.Stop(t.Context(), "a.slice"); err != nil {
		t.Fatal(err)
	}

	want := "StartTransientUnit a.slice, StopUnit a.slice, ResetFailedUnit a.slice"
	if got := strings.Join(s.called(), ", "); got != want {
		t.Errorf("calls %s, want %s", got, want)
	}
}

func TestASliceThatExistsIsGivenTheProperties(t *testing.T) {
	s, slices := newSystemd(t)
	s.fail["StartTransientUnit"] = "UnitExists"
	if err := slices.Ensure(t.Context(), "a.slice", []Property{{"TasksMax", uint64(10)}}); err != nil {
		t.Fatal(err)
	}

	// It need not run: it is started as well.
	if got := s.called(); got[len(got)-1] != "StartUnit a.slice" {
		t.Errorf("calls %q", got)
	}
}

func TestASliceThatSystemdDoesNotKnowIsStopped(t *testing.T) {
	s, slices := newSystemd(t)
	s.fail["StopUnit"] = "NoSuchUnit"
	s.fail["ResetFailedUnit"] = "NoSuchUnit"
	if err := slices.Stop(t.Context(), "a.slice"); err != nil {
		t.Error(err)
	}
}

func TestARefusalNamesTheSlice(t *testing.T) {
	s, slices := newSystemd(t)
	s.fail["StartTransientUnit"] = "LoadFailed"
	err := slices.Ensure(t.Context(), "a.slice", nil)
	if err == nil || !strings.Contains(err.Error(), "start slice a.slice") {
		t.Errorf("error %v", err)
	}
}

func TestACallAfterARestartOfSystemdConnectsAgain(t *testing.T) {
	s, slices := newSystemd(t)
	if err := slices.Ensure(t.Context(), "a.slice", nil); err != nil {
		t.Fatal(err)
	}

	s.restart()
	if err := slices.Ensure(t.Context(), "b.slice", nil); err != nil {
		t.Error(err)
	}
}

// Two workers share the connection: the job of one that is late must not end the wait of the other.
func TestASlowJobLeavesTheConnectionToTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, slices := newSystemd(t)
		s.slow = []string{"slow.slice"}
		err := slices.Ensure(t.Context(), "slow.slice", nil)
		if !errors.Is(err, errLate) {
			t.Errorf("the slow one: %v", err)
		}

		before := s.connections()
		if err := slices.Ensure(t.Context(), "other.slice", nil); err != nil {
			t.Errorf("the other one: %v", err)
		}
		if got := s.connections(); got != before {
			t.Errorf("%d connections were made for it", got-before)
		}

		slices.Close()
	})
}

func TestASystemdThatDoesNotAnswerIsConnectedToAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, slices := newSystemd(t)
		if err := slices.Ensure(t.Context(), "a.slice", nil); err != nil {
			t.Fatal(err)
		}

		s.answerNothing(true)
		if err := slices.Ensure(t.Context(), "b.slice", nil); !errors.Is(err, errLate) {
			t.Errorf("without an answer: %v", err)
		}

		before := s.connections()
		s.answerNothing(false)
		if err := slices.Ensure(t.Context(), "c.slice", nil); err != nil {
			t.Error(err)
		}
		if s.connections() == before {
			t.Error("the dead connection was used again")
		}

		slices.Close()
	})
}

func TestACallerThatCancelsLeavesTheConnectionOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, units := newSystemd(t)
		s.slow = []string{"slow.slice"}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		ended := make(chan error)
		go func() { ended <- units.Ensure(ctx, "slow.slice", nil) }()

		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}

		before := s.connections()
		if err := units.Ensure(t.Context(), "other.slice", nil); err != nil {
			t.Error(err)
		}
		if got := s.connections(); got != before {
			t.Errorf("%d connections after the cancellation, want %d", got, before)
		}

		units.Close()
	})
}

package life_test

import (
	"errors"
	"testing"
	"time"

	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/monitor"
)

var (
	earlier = time.Unix(100, 0)
	now     = time.Unix(200, 0)
)

func TestContainersAtTheStartOfTheServer(t *testing.T) {
	created := life.Container{State: life.Created, Complete: true}
	running := life.Container{State: life.Running, Complete: true}
	exited := life.Container{State: life.Exited, Complete: true}
	refused := life.Container{State: life.Created, Complete: true, Refused: true}
	discarded := life.Container{State: life.Created, Complete: true, Discarded: true}

	const noSandbox = true
	for _, c := range []struct {
		name      string
		container life.Container
		noSandbox bool
		process   life.Process
		want      life.Step
	}{
		{"half made", life.Container{}, false, life.ProcessAlive, life.Undo},
		{
			"half made, ended before its record was whole",
			life.Container{State: life.Exited},
			false,
			life.ProcessEnded,
			life.Undo,
		},
		{"created", created, false, life.ProcessAlive, life.AdoptStart},
		{"created, its init was killed", created, false, life.ProcessEnded, life.Finish},
		{"created, unknown to the monitor", created, false, life.ProcessUnknown, life.Finish},
		{"running", running, false, life.ProcessAlive, life.Adopt},
		{"running, ended since", running, false, life.ProcessEnded, life.Finish},
		{"running, unknown to the monitor", running, false, life.ProcessUnknown, life.Finish},
		{"exited", exited, false, life.ProcessEnded, life.Keep},
		{"exited, unknown to the monitor", exited, false, life.ProcessUnknown, life.Keep},
		{"refused by the OCI runtime", refused, false, life.ProcessUnknown, life.Keep},
		{"removal was begun", discarded, false, life.ProcessAlive, life.Remove},
		{"running, sandbox gone", running, noSandbox, life.ProcessAlive, life.Remove},
		{"exited, sandbox gone", exited, noSandbox, life.ProcessEnded, life.Remove},
		{"half made, sandbox gone", life.Container{}, noSandbox, life.ProcessUnknown, life.Undo},
	} {
		if got := life.ContainerAtStart(c.container, !c.noSandbox, c.process); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestSandboxesAtTheStartOfTheServer(t *testing.T) {
	for _, c := range []struct {
		name      string
		sandbox   life.Sandbox
		initLives bool
		want      life.Step
	}{
		{"half made", life.Sandbox{State: life.Making}, false, life.Undo},
		{"half made with a live init", life.Sandbox{State: life.Making, HasInit: true}, true, life.Undo},
		{"ready", life.Sandbox{State: life.Ready}, false, life.Keep},
		{"ready with a live init", life.Sandbox{State: life.Ready, HasInit: true}, true, life.Keep},
		{"ready, its init has ended", life.Sandbox{State: life.Ready, HasInit: true}, false, life.Finish},
		{"stopped", life.Sandbox{State: life.Stopped, HasInit: true}, false, life.Keep},
	} {
		if got := life.SandboxAtStart(c.sandbox, c.initLives); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestExitsAreReportedWithReasonAndCode(t *testing.T) {
	for _, c := range []struct {
		name string
		exit monitor.Exit
		code int
		want string
	}{
		{"success", monitor.Exit{Code: 0}, 0, "Completed"},
		{"failure", monitor.Exit{Code: 3}, 3, "Error"},
		{"killed", monitor.Exit{Code: 137, Signal: 9}, 137, "Error"},
		{"killed for its memory", monitor.Exit{Code: 137, Signal: 9, OOM: true}, 137, "OOMKilled"},
		{"a child was killed for its memory", monitor.Exit{Code: 0, OOM: true}, 0, "OOMKilled"},
		{"seen by nobody", monitor.Exit{Code: monitor.UnknownCode, Unknown: true}, 255, "Unknown"},
	} {
		c.exit.At = earlier
		got := life.Ended(c.exit)
		if got.Reason != c.want || got.Code != c.code || got.At != earlier {
			t.Errorf("%s: %+v, want %s and code %d", c.name, got, c.want, c.code)
		}
		if (got.Message != "") != c.exit.Unknown {
			t.Errorf("%s: message %q", c.name, got.Message)
		}
	}

	if got := life.Ended(life.Lost("c", now)); got.Reason != "Unknown" || got.Code != 255 || got.At != now {
		t.Errorf("a container of which the monitor does not know: %+v", got)
	}
}

func TestStartThatFailsEndsTheContainer(t *testing.T) {
	cause := errors.New("no such file")
	end, changed := life.StartFailed("", cause, now)
	want := life.Ending{
		Code:    128,
		Reason:  "StartError",
		Message: "no such file",
		At:      now,
	}
	if !changed || end != want {
		t.Errorf("%+v, want %+v", end, want)
	}
	if _, changed := life.StartFailed("OOMKilled", cause, now); changed {
		t.Error("the start's failure hides that the container was killed for its memory")
	}
	if end := life.NotUndone(cause, now); end.Code != 128 || end.Reason != "ContainerCannotRun" {
		t.Errorf("a creation that cannot be undone: %+v", end)
	}
}

// A node agent that was killed between create and start removes such a container, and must not see it end:
// it would count as a restart.
func TestExitOfAContainerThatWasDiscardedIsNotRecorded(t *testing.T) {
	for _, c := range []struct {
		name      string
		container life.Container
		want      bool
	}{
		{"half made", life.Container{}, true},
		{"created", life.Container{Complete: true}, true},
		{"running", life.Container{Complete: true, State: life.Running}, true},
		{"exited", life.Container{Complete: true, State: life.Exited}, false},
		{"discarded", life.Container{Complete: true, Discarded: true}, false},
	} {
		if got := life.RecordsExit(c.container); got != c.want {
			t.Errorf("%s: recorded is %t", c.name, got)
		}
	}
}

func TestWhatStartDoes(t *testing.T) {
	cases := []struct {
		name      string
		container life.Container
		step      life.StartStep
		err       error
	}{
		{"created", life.Container{}, life.StartProgram, nil},
		{"running", life.Container{State: life.Running}, life.StartNothing, nil},
		{"exited", life.Container{State: life.Exited}, life.StartNothing, life.ErrExited},
		{
			"exited after it was refused",
			life.Container{State: life.Exited, Refused: true},
			life.StartNothing,
			life.ErrExited,
		},
		{"discarded", life.Container{Discarded: true, Refused: true}, life.StartNothing, life.ErrDiscarded},
		{"refused", life.Container{Refused: true}, life.StartFails, nil},
	}

	for _, c := range cases {
		step, err := life.Start(c.container)
		if step != c.step || !errors.Is(err, c.err) {
			t.Errorf("%s: step %d, %v; want %d, %v", c.name, step, err, c.step, c.err)
		}
	}
}

func TestProgramThatEndedBeforeItsStartWasRecordedHasNotStartedAfterItsEnd(t *testing.T) {
	if s, at := life.Started(life.Created, time.Time{}, now); s != life.Running || at != now {
		t.Errorf("%s at %v", s, at)
	}
	if s, at := life.Started(life.Exited, earlier, now); s != life.Exited || at != earlier {
		t.Errorf("ended before: %s at %v", s, at)
	}
	if s, at := life.Started(life.Exited, now, earlier); s != life.Exited || at != earlier {
		t.Errorf("ended after: %s at %v", s, at)
	}
}

func TestWhatStopDoes(t *testing.T) {
	const live = true
	for _, c := range []struct {
		name  string
		state life.State
		live  bool
		grace time.Duration
		want  life.StopStep
	}{
		{"running", life.Running, live, time.Second, life.StopAsks},
		{"running, no grace", life.Running, live, 0, life.StopKills},
		{"never started", life.Created, live, time.Second, life.StopKills},
		{"never made", life.Created, !live, time.Second, life.StopNothing},
		{"exited", life.Exited, !live, time.Second, life.StopNothing},
	} {
		if got := life.Stop(c.state, c.live, c.grace); got != c.want {
			t.Errorf("%s: step %d, want %d", c.name, got, c.want)
		}
	}
}

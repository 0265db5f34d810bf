package podworker

import (
	"testing"
	"time"

	"github.com/trivet-node/trivet/node/plan"
)

func TestWhatStepsInFlightHaveBroughtAboutIsHidden(t *testing.T) {
	at := time.Now()
	old := plan.Container{
		ID:      "0",
		Name:    "c",
		State:   plan.Exited,
		Started: at,
	}

	start, remove := plan.Step{
		Verb: plan.Start,
		Name: "c",
	}.Key(), plan.Step{Verb: plan.RemoveContainer, ID: "1"}.Key()

	for _, c := range []struct {
		name     string
		instance plan.Container
		inFlight string
		want     plan.State
	}{
		{
			"running, its postStart hook is not over",
			plan.Container{State: plan.Running, Started: at},
			start,
			plan.Created,
		},
		{"running", plan.Container{State: plan.Running, Started: at}, "", plan.Running},
		{"never started and being removed", plan.Container{State: plan.Exited}, remove, plan.Created},
		{"could not start", plan.Container{State: plan.Exited}, "", plan.Exited},
		{"ended and being removed", plan.Container{State: plan.Exited, Started: at}, remove, plan.Exited},
	} {
		c.instance.ID, c.instance.Name, c.instance.Attempt = "1", "c", 1
		got := mask(
			plan.Observed{Containers: []plan.Container{old, c.instance}},
			map[string]bool{c.inFlight: true},
		).Containers
		if got[0].State != plan.Exited || got[1].State != c.want {
			t.Errorf("%s: states %v and %v, want %v for the second",
				c.name, got[0].State, got[1].State, c.want)
		}
	}
}

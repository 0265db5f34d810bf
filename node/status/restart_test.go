package status

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/plan"
)

func TestAllContainersAreRestartedWithTheirHistory(t *testing.T) {
	p := podOf("Never", []string{"i"}, []string{"a", "b"})
	p.Spec.Containers[0].RestartPolicyRules = []v1.ContainerRestartRule{{
		Action: v1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &v1.ContainerRestartRuleOnExitCodes{
			Operator: v1.ContainerRestartRuleOnExitCodesOpIn,
			Values:   []int32{42},
		},
	}}

	done := instance("i", 0, plan.Exited, 0)
	done.Finished = now.Add(-time.Second)
	asks, stopped := instance("a", 0, plan.Exited, 42), instance("b", 0, plan.Exited, 137)
	running := observed(done, instance("a", 0, plan.Running, 0), instance("b", 0, plan.Running, 0))
	if got := is(compute(p, running, nil), v1.AllContainersRestarting); got != "False " {
		t.Errorf("before: %q", got)
	}

	// The API has not been told of any end when the instances are removed.
	p.Status = compute(p, running, nil)
	remove := func(p *plan.Pod) {
		p.See(observed(done, asks, stopped))
		for _, name := range []string{"i", "a", "b"} {
			p.Begin(plan.Step{
				Verb:    plan.RemoveContainer,
				Name:    name,
				ID:      name + "0",
				KeepLog: true,
			})
		}
	}

	s := compute(p, observed(asks), remove)
	if got := is(s, v1.AllContainersRestarting); got != "True RestartAllContainersStarted" {
		t.Errorf("while it goes on: %q", got)
	}
	if got := is(s, v1.PodInitialized); got != "True " {
		t.Errorf("while it goes on: initialized %q", got)
	}

	if c := s.ContainerStatuses[1]; c.State.Waiting == nil ||
		c.State.Waiting.Reason != plan.RestartingAllContainers {
		t.Errorf("removed: %+v", c.State)
	}

	again := observed(instance("i", 1, plan.Exited, 0), instance("a", 1, plan.Running, 0))
	s = compute(p, again, remove)
	if got := is(s, v1.AllContainersRestarting); got != "False " {
		t.Errorf("after: %q", got)
	}

	for name, want := range map[string]v1.ContainerStateTerminated{
		"i": {ExitCode: 0, Reason: "Completed"},
		"a": {ExitCode: 42, Reason: "Error"},
		"b": {ExitCode: 137, Reason: plan.RestartingAllContainers},
	} {
		last := find(
			append(s.InitContainerStatuses, s.ContainerStatuses...),
			name,
		).LastTerminationState.Terminated
		if last == nil || last.ExitCode != want.ExitCode || last.Reason != want.Reason {
			t.Errorf("%s: last state %+v", name, last)
		}
	}
}

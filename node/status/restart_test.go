package status

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/plan"
)

// restarted is a pod whose container a restarts all when it ends with 42.
func restarted() *v1.Pod {
	p := podOf("Never", []string{"i"}, []string{"a", "b"})
	p.Spec.Containers[0].RestartPolicyRules = []v1.ContainerRestartRule{{
		Action: v1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &v1.ContainerRestartRuleOnExitCodes{
			Operator: v1.ContainerRestartRuleOnExitCodesOpIn,
			Values:   []int32{42},
		},
	}}
	return p
}

func TestAllContainersAreRestartedWithTheirHistory(t *testing.T) {
	done, stopped := instance("i", 0, plan.Exited, 0), instance("b", 0, plan.Exited, 137)
	done.Finished = now.Add(-time.Second)
	asks := instance("a", 0, plan.Exited, 42)

	// The API does not show yet that any of them has ended.
	p := restarted()
	p.Status = compute(
		p,
		observed(done, instance("a", 0, plan.Running, 0), instance("b", 0, plan.Running, 0)),
		nil,
	)

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
	if c := s.ContainerStatuses[1]; c.State.Waiting == nil ||
		c.State.Waiting.Reason != plan.RestartingAllContainers {
		t.Errorf("removed: %+v", c.State)
	}

	s = compute(p, observed(instance("i", 1, plan.Exited, 0), instance("a", 1, plan.Running, 0)), remove)
	for name, want := range map[string]v1.ContainerStateTerminated{
		"i": {ExitCode: 0, Reason: "Completed"},
		"a": {ExitCode: 42, Reason: "Error"},
		"b": {ExitCode: 137, Reason: plan.RestartingAllContainers},
	} {
		all := append(s.InitContainerStatuses, s.ContainerStatuses...)
		last := find(all, name).LastTerminationState.Terminated
		if last == nil || last.ExitCode != want.ExitCode || last.Reason != want.Reason {
			t.Errorf("%s: last state %+v", name, last)
		}
	}
}

func TestConditionsShowThatAllContainersAreRestarted(t *testing.T) {
	p := restarted()
	running := observed(instance("i", 0, plan.Exited, 0), instance("a", 0, plan.Running, 0))
	p.Status = compute(p, running, nil)
	if got := is(p.Status, v1.AllContainersRestarting); got != "False " {
		t.Errorf("before: %q", got)
	}

	p.Status = compute(p, observed(instance("a", 0, plan.Exited, 42)), nil)
	if got := is(p.Status, v1.AllContainersRestarting); got != "True RestartAllContainersStarted" {
		t.Errorf("while it goes on: %q", got)
	}
	if got := is(p.Status, v1.PodInitialized); got != "True " {
		t.Errorf("the pod is not initialized any more: %q", got)
	}

	ended := observed(
		instance("i", 1, plan.Exited, 0),
		instance("a", 1, plan.Exited, 1),
		instance("b", 1, plan.Exited, 0),
	)

	p.Status = compute(p, ended, nil)
	if got := is(p.Status, v1.AllContainersRestarting); got != "False PodFailed" {
		t.Errorf("at the end: %q", got)
	}
}

// The newest instance may have been removed, and the one before it not.
func TestTheRestartCountDoesNotGoBack(t *testing.T) {
	p := podOf("Always", nil, []string{"a"})
	p.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "a", RestartCount: 4}}
	o := plan.Observed{
		Sandboxes:  up(),
		Containers: []plan.Container{instance("a", 3, plan.Exited, 1)},
	}

	if c := compute(p, o, nil).ContainerStatuses[0]; c.RestartCount != 4 {
		t.Errorf("restart count %d, want 4", c.RestartCount)
	}
}

package plan

import (
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/podspec"
)

// restartAll restarts the whole pod in its sandbox when a container ended by a rule that asks for it
// (RestartAllContainers): everything that runs is stopped, all instances are removed, and the next decision
// finds a pod of which nothing has run. The instances that asked for it are removed last, so that the work is
// resumed wherever it was interrupted. It reports whether that is going on.
func (d *planner) restartAll() bool {
	triggers := d.RestartingAll()
	if len(triggers) == 0 {
		return false
	}
	if d.pod.starting() || d.stopRunning(restartAll) > 0 {
		return true
	}

	left := false
	for _, c := range d.Observed.Containers {
		if !slices.Contains(triggers, c.ID) {
			left = true
			d.do(Step{Verb: RemoveContainer, Name: c.Name, ID: c.ID})
		}
	}

	if left {
		return true
	}

	for _, id := range triggers {
		d.do(Step{Verb: RemoveContainer, ID: id})
	}

	return true
}

func restartsAll(r v1.ContainerRestartRule) bool {
	return r.Action == v1.ContainerRestartRuleActionRestartAllContainers
}

// mayRestartAll reports whether some container has a rule to restart all.
func mayRestartAll(pod *v1.Pod) bool {
	for c := range podspec.Regular(pod) {
		if slices.ContainsFunc(c.RestartPolicyRules, restartsAll) {
			return true
		}
	}
	return false
}

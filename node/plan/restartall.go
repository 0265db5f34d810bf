package plan

import (
	"slices"

	v1 "k8s.io/api/core/v1"
)

// restartAll begins the whole pod anew in its sandbox when a container ended by a rule that asks for it
// (RestartAllContainers): everything that runs is stopped, all instances are removed, and the next decision
// finds a pod of which nothing has run. The instances that asked for it are removed last, so the work is
// taken up again wherever it was interrupted.
func (p *planner) restartAll() bool {
	triggers := RestartingAll(p.Pod, p.Observed)
	if len(triggers) == 0 || p.starting() {
		return len(triggers) > 0
	}
	if p.stopRunning("RestartAllContainers") > 0 {
		return true
	}

	others := 0
	for _, c := range p.Observed.Containers {
		if !slices.Contains(triggers, c.ID) {
			others++
			p.do(Step{Verb: RemoveContainer, ID: c.ID, Name: c.Name})
		}
	}

	if others > 0 {
		return true
	}

	for _, id := range triggers {
		p.do(Step{Verb: RemoveContainer, ID: id})
	}

	return true
}

// mayRestartAll reports whether some container has a rule to restart all.
func mayRestartAll(pod *v1.Pod) bool {
	restartsAll := func(r v1.ContainerRestartRule) bool {
		return r.Action == v1.ContainerRestartRuleActionRestartAllContainers
	}
	all := slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
	return slices.ContainsFunc(all, func(c v1.Container) bool {
		return slices.ContainsFunc(c.RestartPolicyRules, restartsAll)
	})
}

// RestartingAll are the IDs of the instances that ended by a rule to restart all containers.
func RestartingAll(pod *v1.Pod, o Observed) []string {
	v := viewOf(pod, o)
	var out []string
	for _, all := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range all {
			cur := v.current(all[i].Name)
			if cur == nil || cur.State != Exited {
				continue
			}

			if r := MatchRule(&all[i], cur.ExitCode); r != nil &&
				r.Action == v1.ContainerRestartRuleActionRestartAllContainers {
				out = append(out, cur.ID)
			}
		}
	}

	return out
}

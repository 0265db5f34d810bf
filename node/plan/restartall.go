package plan

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/podspec"
)

// This file is about rules that restart all containers of a pod in its sandbox (RestartAllContainers,
// https://kep.k8s.io/5532): when a container has ended by such a rule, what runs is stopped without grace,
// all instances but those of ephemeral containers are removed, and the next decision finds a pod of which
// nothing has run.

// RestartingAllContainers is the reason of what restarting all containers has stopped and removed.
const RestartingAllContainers = "RestartingAllContainers"

// MayRestartAll reports whether some container of a pod has a rule to restart all.
func MayRestartAll(pod *v1.Pod) bool {
	for c := range podspec.Regular(pod) {
		if slices.ContainsFunc(c.RestartPolicyRules, restartsAll) {
			return true
		}
	}
	return false
}

func restartsAll(r v1.ContainerRestartRule) bool {
	return r.Action == v1.ContainerRestartRuleActionRestartAllContainers
}

// RestartingAll reports whether the containers of the pod are being restarted all at once.
func (v *View) RestartingAll() bool { return !v.Ending && len(v.triggers()) > 0 }

// triggers are the instances that ended by a rule to restart all containers, in the order of the spec.
func (v *View) triggers() (out []*Container) {
	for c := range podspec.Regular(v.Pod) {
		if len(c.RestartPolicyRules) == 0 {
			continue
		}

		cur := v.current(c.Name)
		if cur == nil || cur.State != Exited {
			continue
		}
		if rule := matchRule(c, cur.ExitCode); rule != nil && restartsAll(*rule) {
			out = append(out, cur)
		}
	}

	return out
}

// restartShown reports whether the API shows that all containers of a pod are being restarted, or that one
// has ended by a rule to do so.
func restartShown(pod *v1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == v1.AllContainersRestarting && c.Status == v1.ConditionTrue {
			return true
		}
	}

	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		c := podspec.Find(pod, s.Name)
		if c == nil || s.State.Terminated == nil {
			continue
		}
		if rule := matchRule(c, s.State.Terminated.ExitCode); rule != nil && restartsAll(*rule) {
			return true
		}
	}

	return false
}

// Removed is the newest instance of a container that this agent has removed to restart all, nil if there was
// none. How that ended is known even if the API has never shown it.
func (v *View) Removed(container string) *Container { return v.removed[container] }

// restartAll goes on with restarting all containers and reports whether that keeps anything else from being
// done. The instances that asked for it are removed last, so that the work is resumed wherever it was
// interrupted, and not before their back-off is over.
func (d *planner) restartAll() bool {
	triggers := d.triggers()
	if len(triggers) == 0 {
		return false
	}

	// What a start in flight makes must be seen before it can be removed.
	if d.startingRegular() || d.resetAll(triggers) > 0 {
		return true
	}

	var held time.Time
	for _, c := range triggers {
		if _, until := d.Backoff(c); until.After(held) {
			held = until
		}
	}

	if !held.IsZero() {
		d.wake(held)
		return true
	}

	for _, c := range triggers {
		d.do(Step{
			Verb:    RemoveContainer,
			Name:    c.Name,
			ID:      c.ID,
			KeepLog: true,
			Restart: true,
		})
	}

	return true
}

// resetAll stops and removes all instances but those that asked for it, and returns how many are left.
// Ephemeral containers run on: they are started once.
func (d *planner) resetAll(triggers []*Container) (left int) {
	for i := range d.Observed.Containers {
		c := &d.Observed.Containers[i]
		asked := slices.ContainsFunc(triggers, func(t *Container) bool { return t.ID == c.ID })
		if asked || isEphemeral(d.Pod, c.Name) {
			continue
		}

		left++
		if c.State == Running {
			// Without grace there is no time for a preStop hook either.
			d.do(Step{
				Verb: Stop,
				Name: c.Name,
				ID:   c.ID,
				Why:  restartAll,
			})

			continue
		}

		d.do(Step{
			Verb:    RemoveContainer,
			Name:    c.Name,
			ID:      c.ID,
			KeepLog: c == newestStarted(&d.View, c.Name),
		})
	}

	return left
}

// newestStarted is the newest instance of a container that was started, nil if there is none.
func newestStarted(v *View, container string) *Container {
	if all := v.Started(container); len(all) > 0 {
		return all[0]
	}
	return nil
}

// removed are the newest instances that were removed to restart all containers, by the name of the container.
type removed map[string]*Container

// keep keeps how an instance ended that is being removed.
func (r removed) keep(v *View, s Step) {
	last := newestStarted(v, s.Name)
	if last == nil || last.ID != s.ID {
		return
	}

	kept := *last
	if stoppedFor(v.triggers(), last) {
		kept.Reason = RestartingAllContainers
	}

	r[s.Name] = &kept
}

// stoppedFor reports whether an instance has ended because others asked for a restart of all: it is none of
// them, and has not ended before the first of them.
func stoppedFor(triggers []*Container, c *Container) bool {
	if len(triggers) == 0 || slices.Contains(triggers, c) {
		return false
	}
	first := slices.MinFunc(triggers, func(a, b *Container) int { return a.Finished.Compare(b.Finished) })
	return !c.Finished.Before(first.Finished)
}

// startingRegular reports whether the start of a container other than an ephemeral one is in flight.
func (d *planner) startingRegular() bool {
	for c := range podspec.Regular(d.Pod) {
		if d.pod.steps.busy(Key{Start, c.Name}) {
			return true
		}
	}
	return false
}

func isEphemeral(pod *v1.Pod, container string) bool {
	return slices.ContainsFunc(pod.Spec.EphemeralContainers, func(c v1.EphemeralContainer) bool {
		return c.Name == container
	})
}

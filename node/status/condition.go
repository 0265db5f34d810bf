package status

import (
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/podspec"
)

// conditions sets those that a node agent owns. Those of others stay as they are.
func (c *computer) conditions() {
	c.set(v1.PodReadyToStartContainers, c.Ready() != nil, "", "")
	c.initializedCondition()

	ready, reason, message := c.containersReady()
	c.set(v1.ContainersReady, ready, reason, message)
	if ready {
		reason, message = c.gates()
		ready = reason == ""
	}

	c.set(v1.PodReady, ready, reason, message)

	// Resources of running containers are not changed in place (yet).
	const infeasible = "in-place resize is not served by this node agent"
	c.setWhile(v1.PodResizePending, c.resized, v1.PodReasonInfeasible, infeasible)
	c.setWhile(v1.AllContainersRestarting, len(c.RestartingAll()) > 0 && !c.Ending, "", "")
	if c.Ended != nil && c.Ended.Disruption != "" {
		c.set(v1.DisruptionTarget, true, v1.PodReasonTerminationByKubelet, c.Ended.Disruption)
	}

	c.scheduled()
}

func condition(all []v1.PodCondition, t v1.PodConditionType) (v1.PodCondition, bool) {
	for _, x := range all {
		if x.Type == t {
			return x, true
		}
	}
	return v1.PodCondition{}, false
}

// set sets a condition. The time of its last transition changes with its status only.
func (c *computer) set(t v1.PodConditionType, on bool, reason, message string) {
	want := v1.PodCondition{
		Type:               t,
		Status:             v1.ConditionFalse,
		Reason:             reason,
		Message:            message,
		ObservedGeneration: c.Pod.Generation,
		LastTransitionTime: metav1.NewTime(c.Now.Truncate(time.Second)),
	}
	if on {
		want.Status = v1.ConditionTrue
	}

	for i := range c.out.Conditions {
		have := &c.out.Conditions[i]
		if have.Type != t {
			continue
		}

		want.LastProbeTime = have.LastProbeTime
		if have.Status == want.Status && !have.LastTransitionTime.IsZero() {
			want.LastTransitionTime = have.LastTransitionTime
		}

		*have = want
		return
	}

	c.out.Conditions = append(c.out.Conditions, want)
}

// setWhile sets a condition that is there only when it was true once.
func (c *computer) setWhile(t v1.PodConditionType, on bool, reason, message string) {
	if on {
		c.set(t, true, reason, message)
		return
	}
	if have, _ := condition(c.out.Conditions, t); have.Status == v1.ConditionTrue {
		c.set(t, false, "", "")
	}
}

// scheduled adds the condition to a pod that no scheduler has placed, such as a static one.
func (c *computer) scheduled() {
	for i := range c.out.Conditions {
		if have := &c.out.Conditions[i]; have.Type == v1.PodScheduled {
			have.ObservedGeneration = c.Pod.Generation
			return
		}
	}
	c.set(v1.PodScheduled, true, "", "")
}

func (c *computer) initializedCondition() {
	if c.out.Phase == v1.PodSucceeded {
		c.set(v1.PodInitialized, true, "PodCompleted", "")
		return
	}
	if names := c.incompleteInits(); len(names) > 0 {
		message := "containers with incomplete status: " + list(names)
		c.set(v1.PodInitialized, false, "ContainersNotInitialized", message)
		return
	}
	c.set(v1.PodInitialized, true, "", "")
}

func list(names []string) string { return "[" + strings.Join(names, " ") + "]" }

func (c *computer) containersReady() (ready bool, reason, message string) {
	switch c.out.Phase {
	case v1.PodSucceeded:
		return false, "PodCompleted", ""
	case v1.PodFailed:
		return false, "PodFailed", ""
	}

	var unready []string
	for i, s := range c.out.InitContainerStatuses {
		if podspec.Sidecar(&c.Pod.Spec.InitContainers[i]) && !s.Ready {
			unready = append(unready, s.Name)
		}
	}

	for _, s := range c.out.ContainerStatuses {
		if !s.Ready {
			unready = append(unready, s.Name)
		}
	}

	if len(unready) > 0 {
		return false, "ContainersNotReady", "containers with unready status: " + list(unready)
	}

	return true, "", ""
}

// gates checks the conditions that others must set before the pod counts as ready. An empty reason: they
// have.
func (c *computer) gates() (reason, message string) {
	var missing []string
	for _, g := range c.Pod.Spec.ReadinessGates {
		have, ok := condition(c.out.Conditions, g.ConditionType)
		switch {
		case !ok:
			missing = append(missing, fmt.Sprintf(
				"corresponding condition of pod readiness gate %q does not exist.", g.ConditionType))
		case have.Status != v1.ConditionTrue:
			missing = append(missing, fmt.Sprintf(
				"the status of pod readiness gate %q is not \"True\", but %s", g.ConditionType, have.Status))
		}
	}

	if len(missing) > 0 {
		return "ReadinessGatesNotReady", strings.Join(missing, ", ")
	}

	return "", ""
}

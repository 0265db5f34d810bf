package status

import (
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/plan"
)

// conditions sets the five conditions that a node agent owns. Those of others stay as they are.
func (c *computer) conditions() {
	c.set(v1.PodReadyToStartContainers, c.readySandbox() != nil, "", "")
	c.initializedCondition()
	ready, reason, message := c.containersReady()
	c.set(v1.ContainersReady, ready, reason, message)
	if ready {
		reason, message = c.gates()
		ready = reason == ""
	}

	c.set(v1.PodReady, ready, reason, message)
	c.resizeCondition()
	if e := c.Memory.Ended; e != nil && e.Disruption != "" {
		c.set(v1.DisruptionTarget, true, v1.PodReasonTerminationByKubelet, e.Disruption)
	}

	if have, ok := condition(c.out.Conditions, v1.AllContainersRestarting); len(plan.RestartingAll(
		c.Pod,
		c.Observed,
	)) > 0 && !c.Decision.Ending {
		c.set(v1.AllContainersRestarting, true, "", "")
	} else if ok && have.Status == v1.ConditionTrue {
		c.set(v1.AllContainersRestarting, false, "", "")
	}

	if _, ok := condition(c.out.Conditions, v1.PodScheduled); !ok {
		c.set(v1.PodScheduled, true, "", "")
	} else {
		i := slices.IndexFunc(
			c.out.Conditions,
			func(x v1.PodCondition) bool { return x.Type == v1.PodScheduled },
		)

		c.out.Conditions[i].ObservedGeneration = c.Pod.Generation
	}
}

// resizeCondition says that resources of running containers are not changed in place (yet): the containers
// keep what they have.
func (c *computer) resizeCondition() {
	if c.resized {
		c.set(
			v1.PodResizePending,
			true,
			v1.PodReasonInfeasible,
			"in-place resize is not served by this node agent",
		)

		return
	}

	if have, ok := condition(c.out.Conditions, v1.PodResizePending); ok && have.Status == v1.ConditionTrue {
		c.set(v1.PodResizePending, false, "", "")
	}
}

func condition(all []v1.PodCondition, t v1.PodConditionType) (v1.PodCondition, bool) {
	for _, x := range all {
		if x.Type == t {
			return x, true
		}
	}
	return v1.PodCondition{}, false
}

func (c *computer) set(t v1.PodConditionType, on bool, reason, message string) {
	want := v1.PodCondition{
		Type:               t,
		Status:             v1.ConditionFalse,
		Reason:             reason,
		Message:            message,
		ObservedGeneration: c.Pod.Generation,
	}
	if on {
		want.Status = v1.ConditionTrue
	}

	for i := range c.out.Conditions {
		if have := &c.out.Conditions[i]; have.Type == t {
			want.LastTransitionTime, want.LastProbeTime = have.LastTransitionTime, have.LastProbeTime
			if have.Status != want.Status || want.LastTransitionTime.IsZero() {
				want.LastTransitionTime = metav1.NewTime(c.Now.Truncate(time.Second))
			}

			*have = want
			return
		}
	}

	want.LastTransitionTime = metav1.NewTime(c.Now.Truncate(time.Second))
	c.out.Conditions = append(c.out.Conditions, want)
}

func (c *computer) initializedCondition() {
	if c.out.Phase == v1.PodSucceeded {
		c.set(v1.PodInitialized, true, "PodCompleted", "")
		return
	}

	if names := c.incompleteInits(); len(names) > 0 {
		c.set(
			v1.PodInitialized,
			false,
			"ContainersNotInitialized",
			fmt.Sprintf("containers with incomplete status: %s", list(names)),
		)

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
		if plan.Sidecar(&c.Pod.Spec.InitContainers[i]) && !s.Ready {
			unready = append(unready, s.Name)
		}
	}

	for _, s := range c.out.ContainerStatuses {
		if !s.Ready {
			unready = append(unready, s.Name)
		}
	}

	if len(unready) > 0 {
		return false, "ContainersNotReady", fmt.Sprintf("containers with unready status: %s", list(unready))
	}

	return true, "", ""
}

// gates checks the conditions that others must set before the pod counts as ready.
func (c *computer) gates() (reason, message string) {
	var missing []string
	for _, g := range c.Pod.Spec.ReadinessGates {
		have, ok := condition(c.out.Conditions, g.ConditionType)
		switch {
		case !ok:
			missing = append(
				missing,
				fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.",
					g.ConditionType),
			)

		case have.Status != v1.ConditionTrue:
			missing = append(
				missing,
				fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %s",
					g.ConditionType, have.Status),
			)
		}
	}

	if len(missing) > 0 {
		return "ReadinessGatesNotReady", strings.Join(missing, ", ")
	}

	return "", ""
}

package status

import (
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podspec"
)

// conditions sets the conditions that a node agent writes. Those of other writers stay as they are.
func (c *computer) conditions() {
	set := &conditionSet{
		all:        c.out.Conditions,
		generation: c.Pod.Generation,
		now:        metav1.NewTime(c.Now.Truncate(time.Second)),
	}

	sandbox, reason, message := sandboxReady(c.View, c.out.Phase)
	set.put(v1.PodReadyToStartContainers, sandbox, reason, message)

	initialized, reason, message := c.podInitialized()
	set.put(v1.PodInitialized, initialized, reason, message)

	ready, reason, message := c.containersReady()
	set.put(v1.ContainersReady, ready, reason, message)
	if ready {
		reason, message = gates(c.Pod.Spec.ReadinessGates, set.all)
		ready = reason == ""
	}

	set.put(v1.PodReady, ready, reason, message)

	resourcer{c}.conditions(set)
	if plan.MayRestartAll(c.Pod) {
		restarting, reason, message := restartingAll(c.View, c.out.Phase)
		set.put(v1.AllContainersRestarting, restarting, reason, message)
	}

	// As with kubelet, not before the containers have ended.
	if c.Ended != nil && c.Ended.Disruption != "" && c.out.Phase == v1.PodFailed {
		set.put(v1.DisruptionTarget, true, v1.PodReasonTerminationByKubelet, c.Ended.Disruption)
	}

	set.scheduled()
	c.out.Conditions = set.all
}

// sandboxReady reports whether containers can be started, or why not in kubelet's words. The sandbox of a pod
// that has ended is stopped after its last status is written.
func sandboxReady(view *plan.View, phase v1.PodPhase) (ready bool, reason, message string) {
	const notReady = "PodSandboxNotReady"
	switch {
	case view.Sandbox == nil:
		return false, notReady, "no pod sandbox exists"
	case view.Ready() == nil || plan.Terminal(phase):
		return false, notReady, "pod sandbox is not ready"
	}
	return true, "", ""
}

// conditionSet are the conditions of a status while it is computed.
type conditionSet struct {
	all []v1.PodCondition

	// generation is that of the pod.
	generation int64
	now        metav1.Time
}

// put sets a condition. The time of its last transition changes with its status only.
func (s *conditionSet) put(t v1.PodConditionType, on bool, reason, message string) {
	want := v1.PodCondition{
		Type:               t,
		Status:             v1.ConditionFalse,
		Reason:             reason,
		Message:            message,
		ObservedGeneration: s.generation,
		LastTransitionTime: s.now,
	}
	if on {
		want.Status = v1.ConditionTrue
	}

	have := s.find(t)
	if have == nil {
		s.all = append(s.all, want)
		return
	}

	want.LastProbeTime = have.LastProbeTime
	if have.Status == want.Status && !have.LastTransitionTime.IsZero() {
		want.LastTransitionTime = have.LastTransitionTime
	}

	*have = want
}

// putWhile sets a condition that is not there before it has been true once.
func (s *conditionSet) putWhile(t v1.PodConditionType, on bool, reason, message string) {
	if on {
		s.put(t, true, reason, message)
		return
	}
	if have := s.find(t); have != nil && have.Status == v1.ConditionTrue {
		s.put(t, false, "", "")
	}
}

// scheduled adds the condition to a pod that no scheduler has placed, such as a static one.
func (s *conditionSet) scheduled() {
	if have := s.find(v1.PodScheduled); have != nil {
		have.ObservedGeneration = s.generation
		return
	}
	s.put(v1.PodScheduled, true, "", "")
}

func (s *conditionSet) find(t v1.PodConditionType) *v1.PodCondition {
	for i := range s.all {
		if s.all[i].Type == t {
			return &s.all[i]
		}
	}
	return nil
}

// condition returns a condition, or the zero value if it is not there.
func condition(all []v1.PodCondition, t v1.PodConditionType) v1.PodCondition {
	for _, x := range all {
		if x.Type == t {
			return x
		}
	}
	return v1.PodCondition{}
}

// podInitialized reports whether initialization is over, and why not.
func (c *computer) podInitialized() (initialized bool, reason, message string) {
	if c.out.Phase == v1.PodSucceeded {
		return true, "PodCompleted", ""
	}
	// A pod stays initialized when its init containers run again.
	was := condition(c.Pod.Status.Conditions, v1.PodInitialized).Status == v1.ConditionTrue
	if names := c.incompleteInits(); len(names) > 0 && !was {
		return false, "ContainersNotInitialized", "containers with incomplete status: " + list(names)
	}
	return true, "", ""
}

func list(names []string) string { return "[" + strings.Join(names, " ") + "]" }

// containersReady reports whether all containers are ready that should be, and why not.
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

// gates checks the conditions that others must set before the pod counts as ready. An empty reason means that
// they have.
func gates(gates []v1.PodReadinessGate, conditions []v1.PodCondition) (reason, message string) {
	var missing []string
	for _, g := range gates {
		have := condition(conditions, g.ConditionType)
		switch have.Status {
		case v1.ConditionTrue:
		case "":
			missing = append(missing, fmt.Sprintf(
				"corresponding condition of pod readiness gate %q does not exist.", g.ConditionType))
		default:
			missing = append(missing, fmt.Sprintf(
				"the status of pod readiness gate %q is not \"True\", but %s", g.ConditionType, have.Status))
		}
	}

	if len(missing) > 0 {
		return "ReadinessGatesNotReady", strings.Join(missing, ", ")
	}

	return "", ""
}

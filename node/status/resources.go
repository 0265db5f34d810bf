package status

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helpers "k8s.io/component-helpers/resource"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/node/plan"
)

// What the kernel rounds up to: below it, what is in force says nothing of what was asked for.
const (
	leastCPURequest = 2
	leastCPULimit   = 10
)

// resourcer shows what pods and containers have been given, and what of it is in force.
type resourcer struct{ *computer }

// container shows the resources of a container, as the runtime says.
func (c resourcer) container(out *v1.ContainerStatus, s subject, cur *plan.Container) {
	given := s.spec.Resources
	out.AllocatedResources = given.Requests.DeepCopy()
	out.Resources = given.DeepCopy()
	if cur.State != plan.Running {
		return
	}

	// What the runtime does not say stays as it was shown.
	var old v1.ResourceRequirements
	if s.old != nil && s.old.State.Running != nil && s.old.ContainerID == out.ContainerID &&
		s.old.Resources != nil {
		old = *s.old.Resources
	}

	force := inForce(cur.Resources)
	if out.Resources.Limits != nil {
		show(out.Resources.Limits, old.Limits, v1.ResourceCPU, force.cpuLimit, leastCPULimit)
		show(out.Resources.Limits, old.Limits, v1.ResourceMemory, force.memory, 0)
	}
	if out.Resources.Requests != nil {
		show(out.Resources.Requests, old.Requests, v1.ResourceCPU, force.cpuRequest, leastCPURequest)
		c.showMemoryRequest(out.Resources.Requests, old.Requests, cur)
	}
}

// showMemoryRequest shows the request of memory as in force with everything else: the runtime does not know
// it.
func (c resourcer) showMemoryRequest(list, old v1.ResourceList, cur *plan.Container) {
	if was, shown := old[v1.ResourceMemory]; shown && c.Lags(cur.ID) {
		list[v1.ResourceMemory] = was
	}
}

// force is what is in force; nil: not known.
type force struct{ cpuRequest, cpuLimit, memory *resource.Quantity }

// inForce translates what the runtime says of a container.
func inForce(r *plan.Resources) (out force) {
	if r == nil {
		return out
	}
	if milli := cgroup.MilliCPUOfShares(r.CPUShares); milli > 0 {
		out.cpuRequest = resource.NewMilliQuantity(milli, resource.DecimalSI)
	}
	if milli := cgroup.MilliCPUOfQuota(r.CPUQuota, r.CPUPeriod); milli > 0 {
		out.cpuLimit = resource.NewMilliQuantity(milli, resource.DecimalSI)
	}
	if r.Memory > 0 {
		out.memory = resource.NewQuantity(r.Memory, resource.BinarySI)
	}
	return out
}

// show replaces what was given by what is in force or, if that is not known, by what was shown before. least
// is the smallest amount that the kernel has: where neither is larger, what was given stays.
func show(list, old v1.ResourceList, name v1.ResourceName, inForce *resource.Quantity, least int64) {
	if inForce == nil {
		if was, shown := old[name]; shown {
			list[name] = was
		}

		return
	}

	given := list[name]
	if inForce.MilliValue() > least || given.MilliValue() > least {
		list[name] = *inForce
	}
}

// pod shows what the pod as a whole has been given, and what is in force.
func (c resourcer) pod() {
	if !c.node.PodResources {
		return
	}

	options := helpers.PodResourcesOptions{}
	requests, limits := helpers.PodRequests(c.Pod, options), helpers.PodLimits(c.Pod, options)
	c.out.AllocatedResources = requests
	old := c.Pod.Status.Resources
	switch {
	case c.Pod.Status.Phase != v1.PodRunning:
		c.out.Resources = &v1.ResourceRequirements{Requests: requests, Limits: limits}
	case c.Resizing != nil && old != nil:
		// The pod's group has the old ones, or is on its way.
	default:
		c.out.Resources = c.podInForce(requests, limits)
	}
}

// podInForce returns what the group of a running pod has been given: its own resources, and of CPU and memory
// what follows from those of its containers.
func (c resourcer) podInForce(requests, limits v1.ResourceList) *v1.ResourceRequirements {
	out := &v1.ResourceRequirements{}
	if own := c.Pod.Spec.Resources; own != nil {
		out = own.DeepCopy()
	}

	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
		fill(&out.Requests, name, requests)
		if c.limited(name) {
			fill(&out.Limits, name, limits)
		}
	}

	return out
}

// fill adds an amount to a list that does not have it.
func fill(list *v1.ResourceList, name v1.ResourceName, from v1.ResourceList) {
	amount, has := from[name]
	if _, there := (*list)[name]; there || !has {
		return
	}
	if *list == nil {
		*list = v1.ResourceList{}
	}
	(*list)[name] = amount
}

// limited reports whether the pod's group has a limit of a resource, as all its containers have one.
func (c resourcer) limited(name v1.ResourceName) bool {
	unlimited := func(x v1.Container) bool {
		q := x.Resources.Limits[name]
		return q.IsZero()
	}
	return !slices.ContainsFunc(c.Pod.Spec.Containers, unlimited) &&
		!slices.ContainsFunc(c.Pod.Spec.InitContainers, unlimited)
}

// conditions sets those of a resize, which are there only while they are true.
func (c resourcer) conditions(set *conditionSet) {
	set.remove(v1.PodResizePending)
	set.remove(v1.PodResizeInProgress)
	if plan.Terminal(c.out.Phase) {
		return
	}

	if p := c.Pending; p != nil {
		set.resize(c.Pod, v1.PodCondition{
			Type:               v1.PodResizePending,
			Reason:             p.Reason,
			Message:            p.Message,
			ObservedGeneration: p.Generation,
		})
	}

	if g := c.Resizing; g != nil {
		going := v1.PodCondition{Type: v1.PodResizeInProgress, ObservedGeneration: g.Generation}
		if f, failed := c.Failed(plan.Resize, ""); failed {
			going.Reason, going.Message = v1.PodReasonError, f.Message
		}

		set.resize(c.Pod, going)
	}
}

// resize adds a condition of a resize. The time of its last transition changes with its reason.
func (s *conditionSet) resize(pod *v1.Pod, want v1.PodCondition) {
	want.Status = v1.ConditionTrue
	want.LastTransitionTime = s.now
	have := condition(pod.Status.Conditions, want.Type)
	if have.Status == v1.ConditionTrue && have.Reason == want.Reason {
		want.LastTransitionTime = have.LastTransitionTime
	}
	s.all = append(s.all, want)
}

// remove takes a condition out.
func (s *conditionSet) remove(t v1.PodConditionType) {
	s.all = slices.DeleteFunc(s.all, func(c v1.PodCondition) bool { return c.Type == t })
}

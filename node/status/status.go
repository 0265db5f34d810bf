// Package status computes the PodStatus that the API should show from what is observed, as kubelet words it,
// and the patch that brings the API there. It is pure; sending is somebody else's job.
package status

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/plan"
)

// Input is what a status is computed from.
type Input struct {
	plan.Input
	Decision plan.Decision
	HostIPs  []string // of the node, primary first
	Runtime  string   // name of the runtime, the scheme of container IDs
}

// Compute returns the whole new status. What others own (conditions of other types, resize, nominations) is
// kept from the pod's.
func Compute(in Input) v1.PodStatus {
	if plan.Terminal(in.Pod.Status.Phase) {
		// final is final
		return *in.Pod.Status.DeepCopy()
	}

	c := &computer{Input: in, out: *in.Pod.Status.DeepCopy(), instances: map[string][]*plan.Container{}}
	for i := range in.Observed.Containers {
		o := &in.Observed.Containers[i]
		c.instances[o.Name] = append(c.instances[o.Name], o)
	}

	for _, all := range c.instances {
		slices.SortFunc(all, func(a, b *plan.Container) int {
			if a.Attempt != b.Attempt {
				return int(b.Attempt) - int(a.Attempt)
			}

			return b.Created.Compare(a.Created)
		})
	}

	if in.Memory.Ended != nil && len(in.Observed.Containers) == 0 && in.Pod.Status.StartTime == nil {
		return c.rejected()
	}

	c.addresses()
	c.containers()
	c.phase()
	c.conditions()
	return c.out
}

type computer struct {
	Input
	out       v1.PodStatus
	instances map[string][]*plan.Container // newest first
	resized   bool                         // the spec's resources are not those of the running containers
	stopped   bool                         // nothing of an ending pod runs any more
}

// rejected is the status of a pod that was never let in: it has nothing but the reason.
func (c *computer) rejected() v1.PodStatus {
	c.out.Phase, c.out.Reason, c.out.Message = v1.PodFailed, c.Memory.Ended.Reason, c.Memory.Ended.Message
	c.out.StartTime = &metav1.Time{Time: c.Memory.Ended.At.Truncate(time.Second)}
	c.out.ObservedGeneration = c.Pod.Generation
	c.out.QOSClass = criconfig.QOS(c.Pod)
	return c.out
}

func (c *computer) addresses() {
	c.out.ObservedGeneration = c.Pod.Generation
	c.out.QOSClass = criconfig.QOS(c.Pod)
	if c.out.StartTime == nil {
		c.out.StartTime = &metav1.Time{Time: c.Now.Truncate(time.Second)}
	}

	if len(c.HostIPs) > 0 {
		c.out.HostIP, c.out.HostIPs = c.HostIPs[0], nil
		for _, ip := range c.HostIPs {
			c.out.HostIPs = append(c.out.HostIPs, v1.HostIP{IP: ip})
		}
	}

	ips := c.podIPs()
	if len(ips) == 0 {
		// keep what was shown: a pod that ended keeps its last address
		return
	}

	c.out.PodIP, c.out.PodIPs = ips[0], nil
	for _, ip := range ips {
		c.out.PodIPs = append(c.out.PodIPs, v1.PodIP{IP: ip})
	}
}

func (c *computer) podIPs() []string {
	ready := c.readySandbox()
	switch {
	case ready == nil:
		return nil
	case c.Pod.Spec.HostNetwork:
		return c.HostIPs
	}
	return ready.IPs
}

func (c *computer) readySandbox() *plan.Sandbox {
	for i := range c.Observed.Sandboxes {
		if c.Observed.Sandboxes[i].Ready {
			return &c.Observed.Sandboxes[i]
		}
	}
	return nil
}

func (c *computer) containers() {
	spec := &c.Pod.Spec
	running := slices.ContainsFunc(
		c.Observed.Containers,
		func(o plan.Container) bool { return o.State == plan.Running },
	)

	starting := slices.ContainsFunc(
		spec.Containers,
		func(k v1.Container) bool { return c.Memory.InFlight["start/"+k.Name] },
	)

	c.stopped = c.Decision.Ending && !running && !starting
	old := c.Pod.Status
	c.out.InitContainerStatuses = nil
	for i := range spec.InitContainers {
		c.out.InitContainerStatuses = append(
			c.out.InitContainerStatuses,
			c.container(
				&spec.InitContainers[i],
				find(old.InitContainerStatuses, spec.InitContainers[i].Name),
				kindInit,
			),
		)
	}

	c.out.ContainerStatuses = nil
	for i := range spec.Containers {
		c.out.ContainerStatuses = append(
			c.out.ContainerStatuses,
			c.container(&spec.Containers[i], find(old.ContainerStatuses, spec.Containers[i].Name), kindMain),
		)
	}

	c.out.EphemeralContainerStatuses = nil
	for i := range spec.EphemeralContainers {
		k := v1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon)
		c.out.EphemeralContainerStatuses = append(
			c.out.EphemeralContainerStatuses,
			c.container(&k, find(old.EphemeralContainerStatuses, k.Name), kindEphemeral),
		)
	}
}

func find(all []v1.ContainerStatus, name string) *v1.ContainerStatus {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

// phase sums the containers up.
func (c *computer) phase() {
	switch {
	case c.stopped && (c.Memory.Ended != nil || c.Decision.Deadline):
		c.out.Phase = v1.PodFailed
	case c.stopped:
		c.out.Phase = v1.PodSucceeded
		if c.anyFailed() {
			c.out.Phase = v1.PodFailed
		}

	case c.anyWaitingFirst():
		c.out.Phase = v1.PodPending
	default:
		c.out.Phase = v1.PodRunning
	}

	if e := c.Memory.Ended; e != nil && c.out.Phase == v1.PodFailed {
		c.out.Reason, c.out.Message = e.Reason, e.Message
	}
}

func (c *computer) anyFailed() bool {
	failed := func(s v1.ContainerStatus) bool {
		return s.State.Terminated == nil ||
			s.State.Terminated.ExitCode != 0
	}
	for i, s := range c.out.InitContainerStatuses {
		if !plan.Sidecar(&c.Pod.Spec.InitContainers[i]) && failed(s) {
			return true
		}
	}
	return slices.ContainsFunc(c.out.ContainerStatuses, failed)
}

// anyWaitingFirst reports whether initialisation is not over or some application container never ran yet.
func (c *computer) anyWaitingFirst() bool {
	begun := slices.ContainsFunc(
		c.Pod.Spec.Containers,
		func(k v1.Container) bool { return len(c.instances[k.Name]) > 0 },
	)
	if !begun && len(c.incompleteInits()) > 0 {
		return true
	}

	for _, s := range c.out.ContainerStatuses {
		if s.State.Running == nil && s.State.Terminated == nil && s.LastTerminationState.Terminated == nil {
			return true
		}
	}

	return false
}

func (c *computer) incompleteInits() []string {
	var out []string
	begun := slices.ContainsFunc(
		c.out.ContainerStatuses,
		func(s v1.ContainerStatus) bool { return s.State.Running != nil || s.State.Terminated != nil },
	)

	for i, s := range c.out.InitContainerStatuses {
		done := s.State.Terminated != nil && s.State.Terminated.ExitCode == 0
		if plan.Sidecar(&c.Pod.Spec.InitContainers[i]) {
			done = s.Started != nil && *s.Started
		}

		if !done && !(begun && c.Decision.Ending) &&
			!(begun && !c.stopped && plan.Sidecar(&c.Pod.Spec.InitContainers[i])) {
			out = append(out, s.Name)
		}
	}

	return out
}

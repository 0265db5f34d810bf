// Package status computes the PodStatus that the API should show of a pod, in kubelet's words, from the
// plan's view of it, and the patch that brings the API there. It is pure: podworker sends the patch.
package status

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podspec"
)

// Node is what the status of every pod shows of its node.
type Node struct {
	// IPs are the addresses of the node, the primary one first.
	IPs []string

	// Runtime is the name of the container runtime: the scheme of container IDs.
	Runtime string

	// PodResources means that the resources of pods as a whole are shown (feature gate
	// InPlacePodLevelResourcesVerticalScaling).
	PodResources bool
}

// Compute returns the whole new status of a pod after a decision. What other writers own (conditions of other
// types, resize, nominations) is kept from the pod's status. A final status stays as it is.
func Compute(view *plan.View, node Node) v1.PodStatus {
	c := &computer{View: view, node: node, out: *view.Pod.Status.DeepCopy()}
	switch {
	case plan.Terminal(view.Pod.Status.Phase):
		return c.out
	case view.Ended != nil && len(view.Observed.Containers) == 0 && view.Pod.Status.StartTime == nil:
		c.rejected()
		return c.out
	}

	c.header()
	c.addresses()
	c.containers()
	c.phase()
	resourcer{c}.pod()
	c.conditions()
	return c.out
}

// computer computes one status.
type computer struct {
	*plan.View
	node Node
	out  v1.PodStatus
}

// rejected shows a pod that was never admitted: it has nothing but the reason.
func (c *computer) rejected() {
	c.header()
	c.out.StartTime = &metav1.Time{Time: c.Ended.At.Truncate(time.Second)}
	c.out.Phase = v1.PodFailed
	c.out.Reason, c.out.Message = c.Ended.Reason, c.Ended.Message
}

// header sets what depends on the pod's spec alone, and when it was seen first.
func (c *computer) header() {
	c.out.ObservedGeneration = c.Pod.Generation
	c.out.QOSClass = podspec.QOS(c.Pod)
	if c.out.StartTime == nil {
		c.out.StartTime = &metav1.Time{Time: c.Now.Truncate(time.Second)}
	}
}

// addresses sets those of the node and, while its sandbox is ready, the pod's own: a pod that ended keeps its
// last one.
func (c *computer) addresses() {
	if len(c.node.IPs) > 0 {
		c.out.HostIP, c.out.HostIPs = c.node.IPs[0], nil
		for _, ip := range c.node.IPs {
			c.out.HostIPs = append(c.out.HostIPs, v1.HostIP{IP: ip})
		}
	}

	if c.Ready() == nil {
		return
	}

	ips := c.IPs(c.node.IPs)
	if len(ips) == 0 {
		return
	}

	c.out.PodIP, c.out.PodIPs = ips[0], nil
	for _, ip := range ips {
		c.out.PodIPs = append(c.out.PodIPs, v1.PodIP{IP: ip})
	}
}

// containers sets the status of each container of the spec.
func (c *computer) containers() {
	spec, old := &c.Pod.Spec, &c.Pod.Status

	c.out.InitContainerStatuses = nil
	for i := range spec.InitContainers {
		k := &spec.InitContainers[i]
		s := subject{spec: k, old: find(old.InitContainerStatuses, k.Name), kind: initContainer}
		c.out.InitContainerStatuses = append(c.out.InitContainerStatuses, c.container(s))
	}

	c.out.ContainerStatuses = nil
	for i := range spec.Containers {
		k := &spec.Containers[i]
		s := subject{spec: k, old: find(old.ContainerStatuses, k.Name), kind: application}
		c.out.ContainerStatuses = append(c.out.ContainerStatuses, c.container(s))
	}

	c.out.EphemeralContainerStatuses = nil
	for i := range spec.EphemeralContainers {
		k := (*v1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon)
		s := subject{spec: k, old: find(old.EphemeralContainerStatuses, k.Name), kind: ephemeral}
		c.out.EphemeralContainerStatuses = append(c.out.EphemeralContainerStatuses, c.container(s))
	}
}

// find returns the status of a container, nil if there is none.
func find(all []v1.ContainerStatus, name string) *v1.ContainerStatus {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

// phase derives the phase from the states of the containers, and takes the reason of a pod that the agent
// ended.
func (c *computer) phase() {
	switch {
	case c.Down() && (c.Ended != nil || c.anyFailed()):
		c.out.Phase = v1.PodFailed
	case c.Down():
		c.out.Phase = v1.PodSucceeded
	case c.anyWaitingFirst():
		c.out.Phase = v1.PodPending
	default:
		c.out.Phase = v1.PodRunning
	}

	if c.Ended != nil && c.out.Phase == v1.PodFailed {
		c.out.Reason, c.out.Message = c.Ended.Reason, c.Ended.Message
	}
}

// anyFailed reports whether a container of a pod that is down did not end with success. Sidecars do not
// count.
func (c *computer) anyFailed() bool {
	failed := func(s v1.ContainerStatus) bool {
		return s.State.Terminated == nil || s.State.Terminated.ExitCode != 0
	}

	for i, s := range c.out.InitContainerStatuses {
		if !podspec.Sidecar(&c.Pod.Spec.InitContainers[i]) && failed(s) {
			return true
		}
	}

	return slices.ContainsFunc(c.out.ContainerStatuses, failed)
}

// anyWaitingFirst reports whether initialization is not over or some application container never ran.
func (c *computer) anyWaitingFirst() bool {
	created := func(k v1.Container) bool { return len(c.Instances(k.Name)) > 0 }
	begun := slices.ContainsFunc(c.Pod.Spec.Containers, created)
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

// incompleteInits returns the names of the init containers that application containers wait for, or waited
// for.
func (c *computer) incompleteInits() []string {
	begun := slices.ContainsFunc(c.out.ContainerStatuses, func(s v1.ContainerStatus) bool {
		return s.State.Running != nil || s.State.Terminated != nil
	})
	if begun && c.Ending {
		return nil
	}

	var out []string
	for i, s := range c.out.InitContainerStatuses {
		done := s.State.Terminated != nil && s.State.Terminated.ExitCode == 0
		if podspec.Sidecar(&c.Pod.Spec.InitContainers[i]) {
			done = begun || s.Started != nil && *s.Started
		}
		if !done {
			out = append(out, s.Name)
		}
	}

	return out
}

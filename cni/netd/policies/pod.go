package policies

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/trivet-node/trivet/cni/policy"
)

// Pod is a pod as the API has it.
type Pod struct {
	policy.Pod
	UID string
	// Mirror is the UID that the runtime knows a static pod by.
	Mirror string
	Node   string
}

// Is reports whether the pod is the one that a runtime names.
func (p Pod) Is(namespace, name, uid string) bool {
	return p.Namespace == namespace && p.Name == name && (uid == "" || uid == p.UID || uid == p.Mirror)
}

// convertPod returns a pod, unless it is in its node's network or has ended: then its addresses are not its
// own, or may be another one's by now.
func convertPod(o *corev1.Pod) (p Pod, ok bool) {
	if o.Spec.HostNetwork || o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed {
		return p, false
	}

	p = Pod{
		Pod:    policy.Pod{Namespace: o.Namespace, Name: o.Name, Labels: o.Labels},
		UID:    string(o.UID),
		Mirror: o.Annotations[corev1.MirrorPodAnnotationKey],
		Node:   o.Spec.NodeName,
	}
	for _, ip := range o.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			p.Addresses = append(p.Addresses, a.WithZone("").Unmap())
		}
	}

	p.Ports = portsOf(o.Spec)
	return p, true
}

// maxPorts is how many ports under names a pod has to policies, the first of them.
const maxPorts = 100

// portsOf returns the ports that a pod has under names while it runs: an init container has its own only if
// it goes on beside the others.
func portsOf(spec corev1.PodSpec) (all []policy.NamedPort) {
	var lists [][]corev1.ContainerPort
	for _, c := range spec.Containers {
		lists = append(lists, c.Ports)
	}
	for _, c := range spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			lists = append(lists, c.Ports)
		}
	}

	for _, ports := range lists {
		for _, port := range ports {
			named := policy.NamedPort{
				Name:     port.Name,
				Protocol: protocols[port.Protocol],
				Number:   uint16(port.ContainerPort),
			}
			if named.Name == "" || slices.Contains(all, named) {
				continue
			}
			if all = append(all, named); len(all) == maxPorts {
				return all
			}
		}
	}
	return all
}

// slimPod keeps of a pod what convertPod reads.
func slimPod(o *corev1.Pod) {
	kept := corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace:       o.Namespace,
		Name:            o.Name,
		UID:             o.UID,
		ResourceVersion: o.ResourceVersion,
		Labels:          o.Labels,
	}}
	if hash := o.Annotations[corev1.MirrorPodAnnotationKey]; hash != "" {
		kept.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: hash}
	}

	kept.Spec.NodeName = o.Spec.NodeName
	kept.Spec.HostNetwork = o.Spec.HostNetwork
	kept.Spec.InitContainers = slimContainers(o.Spec.InitContainers)
	kept.Spec.Containers = slimContainers(o.Spec.Containers)
	kept.Status.Phase = o.Status.Phase
	kept.Status.PodIPs = o.Status.PodIPs
	*o = kept
}

// slimContainers keeps the ports that have names.
func slimContainers(all []corev1.Container) (kept []corev1.Container) {
	for _, c := range all {
		var named []corev1.ContainerPort
		for _, port := range c.Ports {
			if port.Name != "" {
				port = corev1.ContainerPort{
					Name:          port.Name,
					Protocol:      port.Protocol,
					ContainerPort: port.ContainerPort,
				}
				named = append(named, port)
			}
		}
		if len(named) > maxPorts {
			named = named[:maxPorts]
		}
		if len(named) > 0 {
			kept = append(kept, corev1.Container{Ports: named, RestartPolicy: c.RestartPolicy})
		}
	}
	return kept
}

// samePod reports whether two versions of a pod are the same to policies: its containers' ports do not
// change.
func samePod(a, b *corev1.Pod) bool {
	return a.UID == b.UID && labels.Equals(a.Labels, b.Labels) && a.Status.Phase == b.Status.Phase &&
		a.Spec.NodeName == b.Spec.NodeName && slices.Equal(a.Status.PodIPs, b.Status.PodIPs)
}

func slimNamespace(o *corev1.Namespace) {
	*o = corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:            o.Name,
		UID:             o.UID,
		ResourceVersion: o.ResourceVersion,
		Labels:          o.Labels,
	}}
}

// Package admit decides whether a pod that is new on the node can run here: what the scheduler checked is checked again, as pods may be bound
// by others, and what this node cannot do is refused with a reason. It is pure.
package admit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helpers "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// Node is what a pod is checked against.
type Node struct {
	Object         *v1.Node // labels and taints; nil: not known, then not checked
	Allocatable    v1.ResourceList
	AllowedSysctls []string // beside the safe ones; a trailing * stands for anything
}

// Check says why the pod cannot run beside the others, or returns an empty reason.
func Check(node Node, pod *v1.Pod, others []*v1.Pod) (reason, message string) {
	for _, check := range []func() (string, string){
		func() (string, string) { return unserved(pod) },
		func() (string, string) { return system(pod) },
		func() (string, string) { return sysctls(node, pod) },
		func() (string, string) { return placement(node, pod) },
		func() (string, string) { return fit(node, pod, others) },
	} {
		if reason, message = check(); reason != "" {
			return reason, message
		}
	}
	return "", ""
}

// unserved names what this agent cannot do yet: a pod that needs it must not run without it.
func unserved(pod *v1.Pod) (reason, message string) {
	switch {
	case pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers:
		return "UnsupportedFeature", "Pod was rejected: this node agent does not serve user namespaces (hostUsers: false)"
	case len(pod.Spec.ResourceClaims) > 0:
		return "UnsupportedFeature", "Pod was rejected: this node agent does not serve dynamic resource allocation (resourceClaims)"
	}
	return "", ""
}

func system(pod *v1.Pod) (reason, message string) {
	if pod.Spec.OS != nil && pod.Spec.OS.Name != v1.Linux {
		return "PodOSNotSupported", fmt.Sprintf("Failed to admit pod as the OS field doesn't match node OS: pod wants %s, the node is linux", pod.Spec.OS.Name)
	}
	for _, key := range []string{v1.LabelOSStable} {
		if v, ok := pod.Spec.NodeSelector[key]; ok && v != "linux" {
			return "PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"
		}
	}
	return "", ""
}

// safe are the sysctls that are confined to the pod's namespaces and cannot harm others, as kubelet lists them.
var safe = []string{"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
	"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}

func sysctls(node Node, pod *v1.Pod) (reason, message string) {
	if pod.Spec.SecurityContext == nil {
		return "", ""
	}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		name := strings.ReplaceAll(s.Name, "/", ".")
		if !slices.Contains(safe, name) && !slices.ContainsFunc(node.AllowedSysctls, func(p string) bool { return matches(p, name) }) {
			return "SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowlisted", s.Name)
		}
		if pod.Spec.HostNetwork && strings.HasPrefix(name, "net.") {
			return "SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowed with host net enabled", s.Name)
		}
		if pod.Spec.HostIPC && (strings.HasPrefix(name, "kernel.shm") || strings.HasPrefix(name, "kernel.msg") || name == "kernel.sem" || strings.HasPrefix(name, "fs.mqueue.")) {
			return "SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowed with host ipc enabled", s.Name)
		}
	}
	return "", ""
}

func matches(pattern, name string) bool {
	pattern = strings.ReplaceAll(pattern, "/", ".")
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}

// placement checks node name, selector, required affinity, and taints that no pod may stay under.
func placement(node Node, pod *v1.Pod) (reason, message string) {
	if node.Object == nil {
		return "", ""
	}
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node.Object); err != nil || !ok {
		return "NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
	}
	for i := range node.Object.Spec.Taints {
		t := &node.Object.Spec.Taints[i]
		if t.Effect != v1.TaintEffectNoExecute {
			continue
		}
		if !slices.ContainsFunc(pod.Spec.Tolerations, func(x v1.Toleration) bool {
			return corev1.TolerationsTolerateTaint(klog.Background(), []v1.Toleration{x}, t, true)
		}) {
			return "TaintToleration", "Pod was rejected: Predicate TaintToleration failed"
		}
	}
	return "", ""
}

// fit adds the requests up.
func fit(node Node, pod *v1.Pod, others []*v1.Pod) (reason, message string) {
	if limit, ok := node.Allocatable[v1.ResourcePods]; ok && int64(len(others))+1 > limit.Value() {
		return tooMuch(v1.ResourcePods, 1, int64(len(others)), limit.Value())
	}
	want := helpers.PodRequests(pod, helpers.PodResourcesOptions{})
	used := v1.ResourceList{}
	for _, o := range others {
		for name, q := range helpers.PodRequests(o, helpers.PodResourcesOptions{UseStatusResources: true}) {
			sum := used[name]
			sum.Add(q)
			used[name] = sum
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		q := want[name]
		if q.IsZero() {
			continue
		}
		limit, ok := node.Allocatable[name]
		if !ok && node.Object != nil {
			limit, ok = node.Object.Status.Allocatable[name] // of device plugins and others
		}
		if !ok && extended(name) {
			continue // the cluster's: a scheduler extender has counted it
		}
		sum := used[name].DeepCopy()
		sum.Add(q)
		if sum.Cmp(limit) > 0 {
			return tooMuch(name, units(name, q), units(name, used[name]), units(name, limit))
		}
	}
	return "", ""
}

// extended tells whether a resource is none of Kubernetes' own.
func extended(name v1.ResourceName) bool {
	return strings.Contains(string(name), "/") && !strings.Contains(string(name), v1.ResourceDefaultNamespacePrefix)
}

func units(name v1.ResourceName, q resource.Quantity) int64 {
	if name == v1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

func tooMuch(name v1.ResourceName, want, used, limit int64) (reason, message string) {
	return "OutOf" + string(name), fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, want, used, limit)
}

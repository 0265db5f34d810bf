package admit

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// NodeAffinity is the reason of a pod whose labels or affinity are for another node. The node may just have
// got a label that is not known yet.
const NodeAffinity = "NodeAffinity"

// placement checks what keeps a pod away from this node whatever room there is.
func placement(node Node, pod *v1.Pod, active []*v1.Pod) Verdict {
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node.Object); err != nil || !ok {
		return failed(NodeAffinity, "node(s) didn't match Pod's node affinity/selector")
	}
	if pod.Spec.NodeName != "" && pod.Spec.NodeName != node.Object.Name {
		return failed("NodeName", "node(s) didn't match the requested node name")
	}
	if portTaken(pod, active) {
		return failed("NodePorts", "node(s) didn't have free ports for the requested pod ports")
	}
	if !static(pod) && repelled(node.Object, pod) {
		return failed("TaintToleration", "node(s) had taints that the pod didn't tolerate")
	}

	return Verdict{}
}

func failed(predicate, why string) Verdict {
	return reject(predicate, "Predicate %s failed: %s", predicate, why)
}

// repelled reports whether the node has a taint under which the pod may not stay.
func repelled(node *v1.Node, pod *v1.Pod) bool {
	for i := range node.Spec.Taints {
		t := &node.Spec.Taints[i]
		if t.Effect == v1.TaintEffectNoExecute && !tolerated(pod, t) {
			return true
		}
	}
	return false
}

// hostPort is a port of the node.
type hostPort struct {
	ip       string // 0.0.0.0: all
	protocol v1.Protocol
	port     int32
}

const anyIP = "0.0.0.0"

// portTaken reports whether another pod has a port of the node that this one wants.
func portTaken(pod *v1.Pod, active []*v1.Pod) bool {
	want := hostPorts(pod)
	if len(want) == 0 {
		return false
	}

	for _, o := range active {
		for _, theirs := range hostPorts(o) {
			for _, ours := range want {
				if ours.conflicts(theirs) {
					return true
				}
			}
		}
	}

	return false
}

func (p hostPort) conflicts(q hostPort) bool {
	return p.port == q.port && p.protocol == q.protocol && (p.ip == q.ip || p.ip == anyIP || q.ip == anyIP)
}

// hostPorts are the ports of containers that stay.
func hostPorts(pod *v1.Pod) []hostPort {
	var out []hostPort
	add := func(c *v1.Container) {
		for _, p := range c.Ports {
			if p.HostPort <= 0 {
				continue
			}

			port := hostPort{ip: p.HostIP, protocol: p.Protocol, port: p.HostPort}
			if port.ip == "" {
				port.ip = anyIP
			}
			if port.protocol == "" {
				port.protocol = v1.ProtocolTCP
			}

			out = append(out, port)
		}
	}

	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
			add(c)
		}
	}

	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}

	return out
}

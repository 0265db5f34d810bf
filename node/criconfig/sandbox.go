// Package criconfig translates a pod's specification into the configurations that CRI takes, those of
// sandboxes and containers. It is pure: what must be looked up (environment, mounts, image user, the node's
// DNS) is given to it. Defaults and limits are kubelet's.
package criconfig

import (
	"maps"
	"strings"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/podlog"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/swap"
)

// Node is what of the node's configuration goes into its pods.
type Node struct {
	ClusterDNS    []string
	ClusterDomain string
	HostDNS       DNS // of the node's resolv.conf

	LogRoot     string // /var/log/pods
	SeccompRoot string // where Localhost seccomp profiles are

	// SeccompDefault gives RuntimeDefault to pods that do not say which profile they want.
	SeccompDefault bool
	// MemoryCapacity is in bytes. The OOM score of burstable pods depends on it.
	MemoryCapacity int64
	CgroupV2       bool
	// SingleOOMKill lets the OOM killer kill one process instead of all of its container.
	SingleOOMKill bool
	// Swap is how much of the machine's swap containers may use.
	Swap swap.Policy
	// PageSizes are the kernel's names of the sizes of huge pages ("2MB") that can be limited.
	PageSizes []string
	// CPUQuota enforces CPU limits.
	CPUQuota bool
	// Memory is how memory is throttled and kept from being reclaimed on cgroup v2.
	Memory podspec.MemoryQoS
}

// Sandbox returns the configuration of the pod's sandbox of the given attempt.
func Sandbox(node Node, pod *v1.Pod, attempt uint32, cgroupParent string) (*runtime.SandboxConfig, error) {
	hostname, err := hostnameOf(pod, node.ClusterDomain)
	if err != nil {
		return nil, err
	}

	out := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{
			Name:      pod.Name,
			Namespace: pod.Namespace,
			Uid:       string(pod.UID),
			Attempt:   attempt,
		},
		Hostname:     hostname,
		LogDirectory: podlog.Dir(node.LogRoot, pod),
		DnsConfig:    podDNS(node, pod),
		Labels:       podLabels(pod),
		Annotations:  maps.Clone(pod.Annotations),
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    cgroupParent,
			SecurityContext: sandboxSecurity(pod),
			Sysctls:         map[string]string{},
			Overhead:        overheadOf(node, pod),
			Resources:       podResources(node, pod),
		},
	}
	if !pod.Spec.HostNetwork {
		out.PortMappings = portMappings(pod)
	}

	// Pods may write a sysctl with dots or with slashes; runtimes know it with dots.
	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			out.Linux.Sysctls[strings.ReplaceAll(s.Name, "/", ".")] = s.Value
		}
	}

	return out, nil
}

// podLabels are the pod's own, and those by which a node agent finds its sandboxes.
func podLabels(pod *v1.Pod) map[string]string {
	out := maps.Clone(pod.Labels)
	if out == nil {
		out = map[string]string{}
	}
	out[runtime.LabelPodName] = pod.Name
	out[runtime.LabelPodNamespace] = pod.Namespace
	out[runtime.LabelPodUID] = string(pod.UID)
	return out
}

// portMappings are the host ports of containers that run for most of the pod's life.
func portMappings(pod *v1.Pod) []*cri.PortMapping {
	var out []*cri.PortMapping
	for c := range podspec.Running(pod) {
		for _, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}

			out = append(out, &cri.PortMapping{
				Protocol:      protocolOf(p.Protocol),
				ContainerPort: p.ContainerPort,
				HostPort:      p.HostPort,
				HostIp:        p.HostIP,
			})
		}
	}

	return out
}

func protocolOf(p v1.Protocol) cri.Protocol {
	switch p {
	case v1.ProtocolUDP:
		return cri.Protocol_UDP
	case v1.ProtocolSCTP:
		return cri.Protocol_SCTP
	}
	return cri.Protocol_TCP
}

// Package criconfig translates a pod's spec into the configurations that CRI takes: sandbox and container. It
// is pure; what must be looked up (environment, mounts, image user, DNS of the node) is given. Defaults and
// limits are kubelet's.
package criconfig

import (
	"fmt"
	"maps"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/runtime"
)

// Node is what of the node's configuration goes into its pods.
type Node struct {
	ClusterDNS     []string
	ClusterDomain  string
	HostDNS        DNS    // of the node's resolv.conf
	LogRoot        string // /var/log/pods
	SeccompRoot    string // where Localhost seccomp profiles are
	SeccompDefault bool   // RuntimeDefault where the pod says nothing
	MemoryCapacity int64  // bytes; for the OOM score of burstable pods
	CgroupV2       bool
	SingleOOMKill  bool // a process that is out of memory goes alone, not with all of its container
	NoSwap         bool // swap is on, and containers must not use it
	CPUQuota       bool // enforce CPU limits
}

// LogDir is the directory of a pod's logs: ROOT/NAMESPACE_NAME_UID.
func LogDir(root string, pod *v1.Pod) string {
	return filepath.Join(root, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// Sandbox is the configuration of the pod's sandbox of the given attempt.
func Sandbox(node Node, pod *v1.Pod, attempt uint32, cgroupParent string) (*cri.PodSandboxConfig, error) {
	hostname, err := Hostname(pod, node.ClusterDomain)
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
		LogDirectory: LogDir(node.LogRoot, pod),
		DnsConfig:    podDNS(node, pod),
		Labels:       podLabels(pod),
		Annotations:  maps.Clone(pod.Annotations),
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    cgroupParent,
			SecurityContext: sandboxSecurity(node, pod),
			Sysctls:         map[string]string{},
			Overhead:        overhead(node, pod),
			Resources:       podResources(node, pod),
		},
	}
	if !pod.Spec.HostNetwork {
		out.PortMappings = portMappings(pod)
	}

	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			out.Linux.Sysctls[strings.ReplaceAll(s.Name, "/", ".")] = s.Value
		}
	}

	return out, nil
}

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

func portMappings(pod *v1.Pod) []*cri.PortMapping {
	var out []*cri.PortMapping
	add := func(c *v1.Container) {
		for _, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}

			protocol := cri.Protocol_TCP
			switch p.Protocol {
			case v1.ProtocolUDP:
				protocol = cri.Protocol_UDP
			case v1.ProtocolSCTP:
				protocol = cri.Protocol_SCTP
			}

			out = append(out, &cri.PortMapping{
				Protocol:      protocol,
				ContainerPort: p.ContainerPort,
				HostPort:      p.HostPort,
				HostIp:        p.HostIP,
			})
		}
	}

	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil &&
			*c.RestartPolicy == v1.ContainerRestartPolicyAlways {
			add(c)
		}
	}

	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}

	return out
}

// maxHostname is the kernel's limit (sethostname(2)) and, less one, that of a DNS label (RFC 1123).
const maxHostname = 64

// Hostname is what the pod's processes see as their hostname; empty means the node's own.
func Hostname(pod *v1.Pod, clusterDomain string) (string, error) {
	if pod.Spec.HostNetwork {
		return "", nil
	}
	if o := pod.Spec.HostnameOverride; o != nil {
		return *o, nil
	}

	short, domain := names(pod, clusterDomain)
	if domain != "" && pod.Spec.SetHostnameAsFQDN != nil && *pod.Spec.SetHostnameAsFQDN {
		full := short + "." + domain
		if len(full) > maxHostname {
			return "", fmt.Errorf("hostname %s: a fully qualified name may have %d characters, it has %d",
				full, maxHostname, len(full))
		}

		return full, nil
	}

	return short, nil
}

// names are the pod's short hostname and its domain, which only a pod with a subdomain has.
func names(pod *v1.Pod, clusterDomain string) (short, domain string) {
	short = pod.Name
	if pod.Spec.Hostname != "" {
		short = pod.Spec.Hostname
	}
	if len(short) > maxHostname-1 {
		short = strings.TrimRight(short[:maxHostname-1], "-.")
	}
	if pod.Spec.Subdomain != "" {
		domain = fmt.Sprintf("%s.%s.svc.%s", pod.Spec.Subdomain, pod.Namespace, clusterDomain)
	}
	return short, domain
}

// Hosts is the pod's /etc/hosts. For a pod on the host's network it is the node's file, whose content is
// given, with the pod's aliases.
func Hosts(pod *v1.Pod, ips []string, clusterDomain string, nodeFile []byte) []byte {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.Write(nodeFile)
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost " +
			"ip6-localhost ip6-loopback\n" +
			"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		short, domain := names(pod, clusterDomain)
		if o := pod.Spec.HostnameOverride; o != nil {
			short, domain = *o, ""
		}

		for _, ip := range ips {
			if domain != "" {
				fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, short, domain, short)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, short)
			}
		}
	}

	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}

	return []byte(b.String())
}

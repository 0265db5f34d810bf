package criconfig

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// maxHostname is the kernel's limit (sethostname(2)) and, less one, that of a DNS label (RFC 1123).
const maxHostname = 64

// hostnameOf returns what the pod's processes see as their hostname; empty means the node's own.
func hostnameOf(pod *v1.Pod, clusterDomain string) (string, error) {
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

// names returns the pod's short hostname and its domain, which only a pod with a subdomain has.
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

// hostsHead is what kubelet writes at the beginning of the file of a pod with a network of its own.
const hostsHead = `# Kubernetes-managed hosts file.
127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
fe00::0	ip6-mcastprefix
fe00::1	ip6-allnodes
fe00::2	ip6-allrouters
`

// Hosts returns the pod's /etc/hosts. For a pod on the host's network it is the node's file, whose content is
// given, with the pod's aliases.
func Hosts(pod *v1.Pod, ips []string, clusterDomain string, nodeFile []byte) []byte {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.Write(nodeFile)
	} else {
		b.WriteString(hostsHead)
		writeOwnNames(&b, pod, ips, clusterDomain)
	}

	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}

	return []byte(b.String())
}

// writeOwnNames writes the names of the pod for each of its addresses.
func writeOwnNames(b *strings.Builder, pod *v1.Pod, ips []string, clusterDomain string) {
	short, domain := names(pod, clusterDomain)
	if o := pod.Spec.HostnameOverride; o != nil {
		short, domain = *o, ""
	}
	for _, ip := range ips {
		if domain != "" {
			fmt.Fprintf(b, "%s\t%s.%s\t%s\n", ip, short, domain, short)
		} else {
			fmt.Fprintf(b, "%s\t%s\n", ip, short)
		}
	}
}

package admit

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/node/util/sysctl"
)

// safe are the sysctls that are confined to the pod's namespaces and cannot harm others, as kubelet lists
// them.
var safe = []string{
	"kernel.shm_rmid_forced",
	"net.ipv4.ip_local_port_range",
	"net.ipv4.tcp_syncookies",
	"net.ipv4.ping_group_range",
	"net.ipv4.ip_unprivileged_port_start",
	"net.ipv4.ip_local_reserved_ports",
	"net.ipv4.tcp_keepalive_time",
	"net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_keepalive_intvl",
	"net.ipv4.tcp_keepalive_probes",
	"net.ipv4.tcp_rmem",
	"net.ipv4.tcp_wmem",
	"net.ipv4.tcp_slow_start_after_idle",
	"net.ipv4.tcp_notsent_lowat",
}

// sysctls refuses those that are neither safe nor allowed, and those of a namespace that is the node's.
func sysctls(node Node, pod *v1.Pod) Verdict {
	if pod.Spec.SecurityContext == nil {
		return Verdict{}
	}

	hosts := map[sysctl.Namespace]bool{
		sysctl.NetNamespace:  pod.Spec.HostNetwork,
		sysctl.IPCNamespace:  pod.Spec.HostIPC,
		sysctl.UserNamespace: pod.Spec.HostUsers == nil || *pod.Spec.HostUsers,
	}

	for _, s := range pod.Spec.SecurityContext.Sysctls {
		name := sysctl.NormalizeName(s.Name)
		allowed := func(pattern string) bool { return matches(pattern, name) }
		if !slices.Contains(safe, name) && !slices.ContainsFunc(node.AllowedSysctls, allowed) {
			return reject("SysctlForbidden", "forbidden sysctl: %q not allowlisted", name)
		}

		if space, _, _ := sysctl.GetNamespace(name); hosts[space] {
			return reject("SysctlForbidden", "forbidden sysctl: %q not allowed with host %s enabled", name,
				space)
		}
	}

	return Verdict{}
}

func matches(pattern, name string) bool {
	pattern = sysctl.NormalizeName(pattern)
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}

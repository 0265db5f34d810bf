package spec

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Names of all capabilities by their number in linux/capability.h.
var Names = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
	"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN",
	"CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
	"CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// defaults are what a container has without being asked, the set that the field agreed on.
var defaults = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP",
	"CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

type capabilitySet struct{ bounding, ambient []string }

// capabilities applies add and drop. Privileged and ALL mean all that the server itself holds: nobody can
// give what he has not.
func capabilities(security *runtimeapi.LinuxContainerSecurityContext, held []string) (capabilitySet, error) {
	if security.GetPrivileged() {
		return capabilitySet{bounding: slices.Clone(held)}, nil
	}

	set := map[string]bool{}
	for _, name := range defaults {
		set[name] = true
	}

	asked := security.GetCapabilities()
	drop, add := normal(asked.GetDropCapabilities()), normal(asked.GetAddCapabilities())
	if slices.Contains(add, "CAP_ALL") {
		for _, name := range held {
			set[name] = true
		}
	}

	if slices.Contains(drop, "CAP_ALL") {
		clear(set)
		if slices.Contains(add, "CAP_ALL") {
			for _, name := range held {
				set[name] = true
			}
		}
	}

	for _, name := range append(slices.Clone(add), normal(asked.GetAddAmbientCapabilities())...) {
		if name != "CAP_ALL" {
			if !slices.Contains(Names, name) {
				return capabilitySet{}, fmt.Errorf("unknown capability %q", name)
			}

			set[name] = true
		}
	}

	for _, name := range drop {
		delete(set, name)
	}

	var result capabilitySet
	for _, name := range Names {
		if set[name] && slices.Contains(held, name) {
			result.bounding = append(result.bounding, name)
		}
	}

	for _, name := range normal(asked.GetAddAmbientCapabilities()) {
		if slices.Contains(result.bounding, name) {
			result.ambient = append(result.ambient, name)
		}
	}

	return result, nil
}

// of is the set as the runtime wants it. The inheritable set stays empty but for ambient ones
// (CVE-2022-24769).
func (c capabilitySet) of(uint32) *specs.LinuxCapabilities {
	return &specs.LinuxCapabilities{
		Bounding:    c.bounding,
		Effective:   c.bounding,
		Permitted:   c.bounding,
		Inheritable: c.ambient,
		Ambient:     c.ambient,
	}
}

func normal(names []string) []string {
	out := make([]string, 0, len(names))
	for _, n := range names {
		n = strings.ToUpper(n)
		if !strings.HasPrefix(n, "CAP_") {
			n = "CAP_" + n
		}
		out = append(out, n)
	}
	return out
}

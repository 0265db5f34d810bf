package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CapabilityName returns the name of a capability as in linux/capability.h, "CAP_CHOWN".
func CapabilityName(c capability.Cap) string { return "CAP_" + strings.ToUpper(c.String()) }

// knownCapabilities returns the names of all capabilities, in the order of linux/capability.h.
func knownCapabilities() []string {
	var names []string
	for _, c := range capability.ListKnown() {
		names = append(names, CapabilityName(c))
	}
	return names
}

// defaultCapabilities are what a container has that asks for nothing. All runtimes of the field have the same
// ones.
var defaultCapabilities = []string{
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_FSETID",
	"CAP_FOWNER",
	"CAP_MKNOD",
	"CAP_NET_RAW",
	"CAP_SETGID",
	"CAP_SETUID",
	"CAP_SETFCAP",
	"CAP_SETPCAP",
	"CAP_NET_BIND_SERVICE",
	"CAP_SYS_CHROOT",
	"CAP_KILL",
	"CAP_AUDIT_WRITE",
}

const allCapabilities = "CAP_ALL"

// capabilities returns the capabilities of a container's process: the default ones, less those dropped, with
// those added. Privileged and ALL mean all that the server itself holds, since nobody can give more. The
// inheritable set has only the ambient ones (CVE-2022-24769).
func capabilities(
	security *runtimeapi.LinuxContainerSecurityContext, held []string,
) (*specs.LinuxCapabilities, error) {
	if security.GetPrivileged() {
		return capabilitySets(slices.Clone(held), nil), nil
	}

	asked := security.GetCapabilities()
	add := fullNames(asked.GetAddCapabilities())
	drop := fullNames(asked.GetDropCapabilities())
	ambient := fullNames(asked.GetAddAmbientCapabilities())

	// ALL in drop comes before what is added by name: "drop ALL, add CHOWN" is CHOWN.
	set := map[string]bool{}
	if !slices.Contains(drop, allCapabilities) {
		include(set, defaultCapabilities)
	}
	if slices.Contains(add, allCapabilities) {
		include(set, held)
	}

	include(set, add)
	include(set, ambient)
	delete(set, allCapabilities)

	known := knownCapabilities()
	for _, name := range slices.Concat(add, ambient) {
		if name != allCapabilities && !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown capability %q", name)
		}
	}

	for _, name := range drop {
		delete(set, name)
	}

	// The server cannot give what it does not hold.
	given := slices.DeleteFunc(
		known,
		func(name string) bool { return !set[name] || !slices.Contains(held, name) },
	)

	ambient = slices.DeleteFunc(ambient, func(name string) bool { return !slices.Contains(given, name) })
	return capabilitySets(given, ambient), nil
}

func include(set map[string]bool, names []string) {
	for _, name := range names {
		set[name] = true
	}
}

func capabilitySets(given, ambient []string) *specs.LinuxCapabilities {
	return &specs.LinuxCapabilities{
		Bounding:    given,
		Effective:   given,
		Permitted:   given,
		Inheritable: ambient,
		Ambient:     ambient,
	}
}

// fullNames gives capabilities the names that they have in linux/capability.h.
func fullNames(short []string) []string {
	full := make([]string, 0, len(short))
	for _, name := range short {
		name = strings.ToUpper(name)
		if !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		full = append(full, name)
	}
	return full
}

package sandbox

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/trivet-node/trivet/internal/namespace"
)

// sysctlPath returns the path of a sysctl below /proc/sys. The first separator of a name is the one between
// its parts, the other one belongs to them (sysctl.d(5)): net.ipv4.conf.eth0/100.forwarding and
// net/ipv4/conf/eth0.100/forwarding are the same.
func sysctlPath(name string) string {
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' {
		return name
	}
	return strings.NewReplacer(".", "/", "/", ".").Replace(name)
}

// ofNetwork reports whether a sysctl is one of the network namespace.
func ofNetwork(name string) bool { return strings.HasPrefix(sysctlPath(name), "net/") }

// ofIPC reports whether a sysctl is one of the IPC namespace.
func ofIPC(name string) bool {
	p := sysctlPath(name)
	for _, prefix := range []string{"kernel/shm", "kernel/msg", "fs/mqueue/"} {
		if strings.HasPrefix(p, prefix) {
			return true
		}
	}
	return p == "kernel/sem"
}

// checkSysctls refuses those that would change the host.
func checkSysctls(r Record) error {
	for name := range r.config.GetLinux().GetSysctls() {
		p := "/" + sysctlPath(name)
		switch {
		case path.Clean(p) != p:
			return fmt.Errorf("sysctl %q: not a name", name)
		case ofNetwork(name) && r.ownsNetwork():
		case ofIPC(name) && r.ownsIPC():
		default:
			return fmt.Errorf("sysctl %s: the pod has no namespace of its own for it", name)
		}
	}

	return nil
}

// writeSysctls writes those of the network namespace, or those of the others, on a thread that is in it.
func writeSysctls(r Record, users *namespace.Users, network bool) error {
	for name, value := range r.config.GetLinux().GetSysctls() {
		if ofNetwork(name) != network {
			continue
		}

		if users != nil && sysctlPath(name) == pingGroups {
			var err error
			if value, err = groupsOutside(value, *users); err != nil {
				return fmt.Errorf("sysctl %s: %w", name, err)
			}
		}

		file := filepath.Join("/proc/sys", sysctlPath(name))
		if err := os.WriteFile(file, []byte(value), 0); err != nil {
			return fmt.Errorf("sysctl %s=%s: %w", name, value, err)
		}
	}
	return nil
}

// groupsOutside returns what net.ipv4.ping_group_range of a pod with users of its own is for the host's root,
// who writes it. Of groups that the pod does not have, as in "0 2147483647", the range ends with its last.
func groupsOutside(value string, users namespace.Users) (string, error) {
	fields := strings.Fields(value)
	if len(fields) != 2 {
		return "", fmt.Errorf("%q is not a range of groups", value)
	}

	var groups [2]uint32
	for i, text := range fields {
		inside, err := strconv.ParseUint(text, 0, 31)
		if err != nil {
			return "", fmt.Errorf("%q is not a range of groups: %w", value, err)
		}

		groups[i] = uint32(inside)
	}

	first, ok := users.Outside(groups[0])
	if !ok {
		return "", fmt.Errorf("group %d is none of the %d of the pod", groups[0], users.Length)
	}
	last, _ := users.Outside(min(groups[1], users.Length-1))

	return fmt.Sprintf("%d\t%d", first, last), nil
}

// writeNetSysctls writes those of the network namespace, after the pod was joined to the network: those of an
// interface exist only with the interface.
func (n namespaces) writeNetSysctls(r Record) error {
	for name := range r.config.GetLinux().GetSysctls() {
		if ofNetwork(name) {
			users := n.Users(r)
			return n.cfg.Kernel.InNamespace(n.Netns(r), func() error { return writeSysctls(r, users, true) })
		}
	}
	return nil
}

// Defaults of the network namespace: everybody may bind any port and send pings in it, as nothing of the node
// is there to be protected.
const (
	portStart  = "net/ipv4/ip_unprivileged_port_start"
	pingGroups = "net/ipv4/ping_group_range"
)

// writeDefaults writes those that are configured, on a thread that is in the pod's new network namespace. It
// comes before CNI plugins, which may set other values, and before the pod's own. A node where they cannot be
// written (/proc/sys is read-only) runs its pods all the same.
func (n namespaces) writeDefaults(r Record) {
	defaults := map[string]string{}
	if n.cfg.UnprivilegedPorts {
		defaults[portStart] = "0"
	}

	// These are groups of the host, and all that the kernel can have here. Those of a pod with users of its
	// own are among them if its range is: other pods can send pings with a capability only.
	if n.cfg.UnprivilegedICMP {
		defaults[pingGroups] = "0 2147483647"
	}

	for name, value := range defaults {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
			n.cfg.Log.Debug("default of a sysctl is not set", "sandbox", r.ID, "sysctl", name, "err", err)
		}
	}
}

package sandbox

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
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
func writeSysctls(r Record, network bool) error {
	for name, value := range r.config.GetLinux().GetSysctls() {
		if ofNetwork(name) != network {
			continue
		}
		file := filepath.Join("/proc/sys", sysctlPath(name))
		if err := os.WriteFile(file, []byte(value), 0); err != nil {
			return fmt.Errorf("sysctl %s=%s: %w", name, value, err)
		}
	}
	return nil
}

// writeNetSysctls writes those of the network namespace, after the pod was joined to the network: those of an
// interface exist only with the interface.
func (n namespaces) writeNetSysctls(r Record) error {
	for name := range r.config.GetLinux().GetSysctls() {
		if ofNetwork(name) {
			return n.cfg.Kernel.InNamespace(n.Netns(r), func() error { return writeSysctls(r, true) })
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

	// These are groups of the host: those of a pod's user namespace are among them.
	if n.cfg.UnprivilegedICMP {
		defaults[pingGroups] = "0 2147483647"
	}

	for name, value := range defaults {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
			n.cfg.Log.Debug("default of a sysctl is not set", "sandbox", r.ID, "sysctl", name, "err", err)
		}
	}
}

package sandbox

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/namespace"
)

// sysctlPath is where a sysctl is below /proc/sys. The first separator of a name is the one between its
// parts, the other one belongs to them (sysctl.d(5)): net.ipv4.conf.eth0/100.forwarding and
// net/ipv4/conf/eth0.100/forwarding are the same.
func sysctlPath(name string) string {
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' {
		return name
	}
	return strings.NewReplacer(".", "/", "/", ".").Replace(name)
}

// ofNetwork reports whether a sysctl is one of the network namespace.
func ofNetwork(name string) bool { return strings.HasPrefix(sysctlPath(name), "net/") }

// checkSysctls refuses those that would change the host.
func checkSysctls(r Record) error {
	o := r.Options()
	for name := range r.config.GetLinux().GetSysctls() {
		p := sysctlPath(name)
		ipc := strings.HasPrefix(p, "kernel/shm") || strings.HasPrefix(p, "kernel/msg") ||
			p == "kernel/sem" || strings.HasPrefix(p, "fs/mqueue/")
		switch {
		case path.Clean("/"+p) != "/"+p:
			return fmt.Errorf("sysctl %q: not a name", name)
		case ofNetwork(name) && o.GetNetwork() != runtimeapi.NamespaceMode_NODE:
		case ipc && o.GetIpc() != runtimeapi.NamespaceMode_NODE:
		default:
			return fmt.Errorf("sysctl %s: the pod has no namespace of its own for it", name)
		}
	}

	return nil
}

// writeSysctls writes those of the network namespace or those of the others, on a thread that is in it.
func writeSysctls(r Record, network bool) error {
	for name, value := range r.config.GetLinux().GetSysctls() {
		if ofNetwork(name) != network {
			continue
		}
		if err := os.WriteFile(filepath.Join("/proc/sys", sysctlPath(name)), []byte(value), 0); err != nil {
			return fmt.Errorf("sysctl %s=%s: %w", name, value, err)
		}
	}
	return nil
}

// writeNetSysctls is for after the pod was joined to the network: those of an interface are there with the
// interface only.
func (s *Sandboxes) writeNetSysctls(r Record) error {
	for name := range r.config.GetLinux().GetSysctls() {
		if ofNetwork(name) {
			return namespace.Do(func() error { return writeSysctls(r, true) }, s.Netns(r))
		}
	}
	return nil
}

// Defaults of the network namespace: everybody may bind any port and send pings in it, as nothing of the
// node is there to be protected.
const (
	portStart  = "net/ipv4/ip_unprivileged_port_start"
	pingGroups = "net/ipv4/ping_group_range"
)

// writeDefaults writes those that are configured, on a thread that is in the pod's new network namespace.
// It comes before CNI plugins, which may set other values, and before the pod's own. A node where they
// cannot be written (/proc/sys is read-only) loses no pod by that.
func (s *Sandboxes) writeDefaults(r Record) {
	defaults := map[string]string{}
	if s.cfg.UnprivilegedPorts {
		defaults[portStart] = "0"
	}

	// Where the pod has a user namespace, these groups are not all mapped.
	users := r.Options().GetUsernsOptions()
	if s.cfg.UnprivilegedICMP && (users == nil || users.Mode != runtimeapi.NamespaceMode_POD) {
		defaults[pingGroups] = "0 2147483647"
	}

	for name, value := range defaults {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
			s.cfg.Log.Debug("default of a sysctl is not set", "sandbox", r.ID, "sysctl", name, "err", err)
		}
	}
}

package sandbox

import (
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/namespace"
)

func TestSysctlNames(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.ip_forward":               "net/ipv4/ip_forward",
		"net/ipv4/ip_forward":               "net/ipv4/ip_forward",
		"net.ipv4.conf.eth0/100.forwarding": "net/ipv4/conf/eth0.100/forwarding",
		"net/ipv4/conf/eth0.100/forwarding": "net/ipv4/conf/eth0.100/forwarding",
		"kernel":                            "kernel",
		"net.ipv4.conf.//////etc/passwd":    "net/ipv4/conf/......etc.passwd",

		// This is refused by checkSysctls.
		"net/ipv4/../../../../etc/cron.d/break": "net/ipv4/../../../../etc/cron.d/break",
	} {
		if got := sysctlPath(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestSysctlsOfTheHostAreRefused(t *testing.T) {
	for _, name := range []string{
		"net.ipv4.ip_forward", "net/ipv4/conf/eth0.100/forwarding", "kernel.shmmax", "kernel.msgmax",
		"kernel.sem", "fs.mqueue.msg_max",
	} {
		if err := checkSysctls(withSysctl(name, runtimeapi.NamespaceMode_POD)); err != nil {
			t.Error(err)
		}
		if err := checkSysctls(withSysctl(name, runtimeapi.NamespaceMode_NODE)); err == nil {
			t.Errorf("%s of the host can be set", name)
		}
	}

	for _, name := range []string{
		"vm.swappiness", "kernel.domainname", "net/../vm/swappiness", "net//ipv4/x", "net.", "net", "",
	} {
		if err := checkSysctls(withSysctl(name, runtimeapi.NamespaceMode_POD)); err == nil {
			t.Errorf("%q can be set", name)
		}
	}
}

// withSysctl returns the record of a pod with a sysctl, whose network and IPC namespaces are its own or the
// node's.
func withSysctl(name string, mode runtimeapi.NamespaceMode) Record {
	return Record{config: &runtimeapi.PodSandboxConfig{
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			Sysctls: map[string]string{name: "1"},
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: mode, Ipc: mode},
			},
		},
	}}
}

func TestGroupsOfAPodAreWrittenAsThoseOfTheHost(t *testing.T) {
	users := namespace.Users{First: 1 << 20, Length: 1 << 16}
	for value, want := range map[string]string{
		"5 6":           "1048581\t1048582",
		"0\t0":          "1048576\t1048576",
		"0 2147483647":  "1048576\t1114111",
		"1 0":           "1048577\t1048576", // nobody
		"65536 65537":   "",
		"5":             "",
		"5 6 7":         "",
		"-1 6":          "",
		"0 4294967295":  "",
		"0 99999999999": "",
	} {
		if got, err := groupsOutside(value, users); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", value, got, err, want)
		}
	}
}

package sandbox

import (
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestSysctlNames(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.ip_forward":                   "net/ipv4/ip_forward",
		"net/ipv4/ip_forward":                   "net/ipv4/ip_forward",
		"net.ipv4.conf.eth0/100.forwarding":     "net/ipv4/conf/eth0.100/forwarding",
		"net/ipv4/conf/eth0.100/forwarding":     "net/ipv4/conf/eth0.100/forwarding",
		"kernel":                                "kernel",
		"net.ipv4.conf.//////etc/passwd":        "net/ipv4/conf/......etc.passwd",
		"net/ipv4/../../../../etc/cron.d/break": "net/ipv4/../../../../etc/cron.d/break", // refused below
	} {
		if got := sysctlPath(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestSysctlsOfTheHostAreRefused(t *testing.T) {
	record := func(name string, host bool) Record {
		mode := runtimeapi.NamespaceMode_POD
		if host {
			mode = runtimeapi.NamespaceMode_NODE
		}
		return Record{config: &runtimeapi.PodSandboxConfig{Linux: &runtimeapi.LinuxPodSandboxConfig{Sysctls: map[string]string{name: "1"},
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: mode, Ipc: mode}}}}}
	}
	for _, name := range []string{"net.ipv4.ip_forward", "net/ipv4/conf/eth0.100/forwarding", "kernel.shmmax", "kernel.msgmax", "kernel.sem", "fs.mqueue.msg_max"} {
		if err := checkSysctls(record(name, false)); err != nil {
			t.Error(err)
		}
		if err := checkSysctls(record(name, true)); err == nil {
			t.Errorf("%s of the host can be set", name)
		}
	}
	for _, name := range []string{"vm.swappiness", "kernel.domainname", "net/../vm/swappiness", "net//ipv4/x", "net.", "net", ""} {
		if err := checkSysctls(record(name, false)); err == nil {
			t.Errorf("%q can be set", name)
		}
	}
}

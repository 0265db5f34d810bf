package sandbox_test

import (
	"os"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
	"github.com/trivet-node/trivet/internal/testenv"
)

// link is a CNI plugin that makes an interface and gives no address.
const link = `#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' ;;
ADD) nsenter --net="$CNI_NETNS" ip link add "$CNI_IFNAME" type veth peer name peer0 >&2 || exit 1
	echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}]}' ;;
esac
`

func TestSysctlOfTheInterfaceIsSet(t *testing.T) {
	testenv.Program(t, "ip", "iproute2")
	testenv.Program(t, "nsenter", "util-linux")
	n := nodetest.New(t)
	n.Network(link)
	n.Pull()
	pod := n.Sandbox("sysctl", func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_POD
		c.Linux.Sysctls = map[string]string{
			"net.ipv4.conf.eth0.forwarding":  "1",
			"net/ipv4/conf/peer0/forwarding": "1",
			"kernel.shm_rmid_forced":         "1",
		}
	})

	c := n.Run(pod, "app", []string{"sleep", "1000"}, nil)
	for _, path := range []string{
		"net/ipv4/conf/eth0/forwarding",
		"net/ipv4/conf/peer0/forwarding",
		"kernel/shm_rmid_forced",
	} {
		if out, _ := n.Exec(c, "cat /proc/sys/"+path); out != "1\n" {
			t.Errorf("%s is %q", path, out)
		}
	}
}

// As with other runtimes, a pod needs no capability for what does no harm in a network namespace of its own.
func TestPodBindsLowPortsAndPingsWithoutCapabilities(t *testing.T) {
	testenv.Program(t, "ip", "iproute2")
	testenv.Program(t, "nsenter", "util-linux")
	n := nodetest.New(t)
	n.Network(link)
	n.Pull()
	start := func(name string, sysctls map[string]string) string {
		pod := n.Sandbox(name, func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_POD
			c.Linux.Sysctls = sysctls
		})

		return n.Run(pod, name, []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 1000}
			c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}
		})
	}

	c := start("plain", nil)
	const sysctls = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range"
	if out, _ := n.Exec(c, sysctls); out != "0\n0\t2147483647\n" {
		t.Errorf("sysctls %q", out)
	}

	// It waits for a client until it is killed.
	if out, code := n.Exec(c, "timeout 1 nc -l -p 80"); code != 143 && code != 124 {
		t.Errorf("port 80: %q, code %d", out, code)
	}

	c = start("own", map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "1000",
		"net.ipv4.ping_group_range":           "5\t6",
	})
	if out, _ := n.Exec(c, sysctls); out != "1000\n5\t6\n" {
		t.Errorf("the pod's own: %q", out)
	}

	host, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	pod := n.Sandbox("host", nil)
	c = n.Run(pod, "host", []string{"sleep", "1000"}, nil)
	if out, _ := n.Exec(c, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"); out != string(host) {
		t.Errorf("a pod on the host's network has %q, the host %q", out, host)
	}

	name, err := os.Hostname()
	if out, _ := n.Exec(c, "echo $HOSTNAME"); err != nil || out != name+"\n" {
		t.Errorf("a pod on the host's network has the name %q, the host %q, %v", out, name, err)
	}
}

// CVE-2022-0811's class: the value of a harmless sysctl must not set another one, which is the host's.
func TestValueOfASysctlSetsNoOther(t *testing.T) {
	n := nodetest.New(t)
	before, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}

	for _, value := range []string{"1+kernel.core_pattern=|/evil", "1,kernel.core_pattern=|/evil"} {
		config := &runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: "sysctl", Namespace: "test", Uid: value},
			Linux: &runtimeapi.LinuxPodSandboxConfig{
				Sysctls: map[string]string{"kernel.shm_rmid_forced": value},
				SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
					NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
				},
			},
		}

		request := &runtimeapi.RunPodSandboxRequest{Config: config}
		if _, err := n.Pods.RunPodSandbox(t.Context(), request); err == nil {
			t.Errorf("value %q was accepted", value)
		}
	}

	after, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil || string(after) != string(before) {
		t.Errorf("core_pattern is %q, was %q, %v", after, before, err)
	}
}

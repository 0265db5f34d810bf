package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CVE-2022-0811's class: the value of a harmless sysctl must not set another one, which is the host's.
func TestValueOfASysctlSetsNoOther(t *testing.T) {
	n := newNode(t)
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
		if _, err := n.pods.RunPodSandbox(t.Context(), request); err == nil {
			t.Errorf("value %q was accepted", value)
		}
	}

	after, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil || string(after) != string(before) {
		t.Errorf("core_pattern is %q, was %q, %v", after, before, err)
	}
}

// CVE-2024-21626's class: by a descriptor that the runtime or its parent left open, a container reaches the
// host.
func TestContainerInheritsNoDescriptorAndNoWayOut(t *testing.T) {
	n := newNode(t)
	n.pull()
	pod, box := n.sandbox("descriptors", nil)
	c := n.run(pod, box, "app", []string{"sleep", "1000"}, nil)
	if out, _ := n.exec(c, "ls /proc/1/fd"); out != "0\n1\n2\n" {
		t.Errorf("process 1 has descriptors %q", out)
	}

	out, _ := n.exec(c, "for fd in /proc/$$/fd/*; do readlink $fd; done")
	if strings.Contains(strings.ReplaceAll(out, "/dev/null\n", ""), "/") {
		t.Errorf("an exec has descriptors %q", out)
	}

	for fd := range 12 {
		config := func(c *runtimeapi.ContainerConfig) {
			c.WorkingDir = fmt.Sprintf("/proc/self/fd/%d/../../..", fd)
		}
		id := n.create(pod, box, fmt.Sprint("cwd", fd), []string{"sleep", "1000"}, config)
		if n.startContainer(id) != nil {
			continue
		}
		if out, _ := n.exec(id, "ls ."+n.dir); out != "" {
			t.Errorf("a working directory of descriptor %d shows the host: %q", fd, out)
		}
	}
}

// CVE-2020-15257's class: an abstract socket belongs to the network namespace, so a pod on the host's
// network could speak to it.
func TestNoSocketOfOursIsReachableByItsNameAlone(t *testing.T) {
	n := newNode(t)
	n.pull()
	pod, box := n.sandbox("sockets", nil)
	n.run(pod, box, "app", []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) { c.Tty = true })
	ours := map[string]bool{}
	for _, pid := range append(n.monitors(), n.cmd.Process.Pid) {
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			t.Fatal(err)
		}

		for _, l := range links {
			if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, "socket:[") {
				ours[strings.Trim(to, "socket:[]")] = true
			}
		}
	}

	table, err := os.ReadFile("/proc/net/unix")
	if err != nil || len(ours) == 0 {
		t.Fatalf("%d sockets, %v", len(ours), err)
	}

	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) > 7 && ours[fields[6]] && strings.HasPrefix(fields[7], "@") {
			t.Errorf("abstract socket %s", fields[7])
		}

		if len(fields) > 7 && ours[fields[6]] && strings.HasPrefix(fields[7], "/") {
			if info, err := os.Stat(fields[7]); err != nil || info.Mode().Perm()&0o007 != 0 {
				t.Errorf("socket %s: %v, %v", fields[7], info, err)
			}
		}
	}
}

package bundle_test

import (
	"fmt"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
)

// CVE-2024-21626's class: by a descriptor that the runtime or its parent left open, a container reaches the
// host.
func TestContainerInheritsNoDescriptorAndNoWayOut(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	pod := n.Sandbox("descriptors", nil)
	c := n.Run(pod, "app", []string{"sleep", "1000"}, nil)
	if out, _ := n.Exec(c, "ls /proc/1/fd"); out != "0\n1\n2\n" {
		t.Errorf("process 1 has descriptors %q", out)
	}

	out, _ := n.Exec(c, "for fd in /proc/$$/fd/*; do readlink $fd; done")
	if strings.Contains(strings.ReplaceAll(out, "/dev/null\n", ""), "/") {
		t.Errorf("an exec has descriptors %q", out)
	}

	for fd := range 12 {
		config := func(c *runtimeapi.ContainerConfig) {
			c.WorkingDir = fmt.Sprintf("/proc/self/fd/%d/../../..", fd)
		}
		id := n.Create(pod, fmt.Sprint("cwd", fd), []string{"sleep", "1000"}, config)
		if n.StartContainer(id) != nil {
			continue
		}
		if out, _ := n.Exec(id, "ls ."+n.Dir); out != "" {
			t.Errorf("a working directory of descriptor %d shows the host: %q", fd, out)
		}
	}
}

func TestContainerRunsAsTheUserThatItAsksFor(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	pod := n.Sandbox("users", nil)
	c := n.Run(pod, "app", []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.RunAsUsername = "web"
		c.Linux.SecurityContext.SupplementalGroups = []int64{6000}
	})

	out, _ := n.Exec(c, "id")
	for _, want := range []string{"uid=1002", "gid=1003", "5000", "6000"} {
		if !strings.Contains(out, want) {
			t.Errorf("id says %q, not %s", out, want)
		}
	}
}

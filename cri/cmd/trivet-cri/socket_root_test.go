package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
)

// CVE-2020-15257's class: an abstract socket belongs to the network namespace, so a pod on the host's
// network could speak to it.
func TestNoSocketOfOursIsReachableByItsNameAlone(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	pod := n.Sandbox("sockets", nil)
	n.Run(pod, "app", []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) { c.Tty = true })
	ours := map[string]bool{}
	for _, pid := range append(n.Monitors(), n.Cmd.Process.Pid) {
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

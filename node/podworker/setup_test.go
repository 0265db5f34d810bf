package podworker_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

// A container that runs as root may make its /etc/hosts as large as it likes. The agent that reads it whole
// dies, and again after each start.
func TestHostsFileOfATerabyteIsWrittenAnew(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	root := t.TempDir()
	c.start(s, root)
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)
	hosts := filepath.Join(root, "pods", string(pod.UID), "etc-hosts")
	want, err := os.ReadFile(hosts)
	if err != nil || !strings.Contains(string(want), "localhost") {
		t.Fatalf("%q, %v", want, err)
	}
	if err := os.Truncate(hosts, 1<<40); err != nil {
		t.Fatal(err)
	}

	s.Exit("app", 1)
	c.waitFor(pod.UID, "restarted", func(p *v1.Pod) bool {
		return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})

	info, err := os.Stat(hosts)
	if err != nil || info.Size() != int64(len(want)) {
		t.Fatalf("size %d, %v; want %d", info.Size(), err, len(want))
	}
	if got, err := os.ReadFile(hosts); err != nil || string(got) != string(want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

package podworker_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

func TestLogsAreLinkedWhileTheirContainersAreThere(t *testing.T) {
	s := runtimetest.Start(t)
	c := newCluster(t)
	root := t.TempDir()
	c.start(s, root)
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
	// The link's name would be too long.
	pod.Name = strings.Repeat("n", 240)
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)
	short := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
	short.UID = "uid-2"
	c.put(short)
	p := c.waitFor(short.UID, "ready", ready)
	links := func() []string {
		found, err := filepath.Glob(filepath.Join(root, "*.log"))
		if err != nil {
			t.Fatal(err)
		}

		return found
	}

	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "fake://")
	target, err := os.Readlink(filepath.Join(root, "web_shop_app-"+id+".log"))
	if want := filepath.Join(root, "logs/shop_web_uid-2/app/0.log"); target != want || len(links()) != 2 {
		t.Errorf("links %v; it leads to %q (%v), want %q", links(), target, err, want)
	}

	for _, uid := range []types.UID{pod.UID, short.UID} {
		c.remove(uid, 0)
		c.waitUntilForgotten(uid)
	}

	if left := links(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

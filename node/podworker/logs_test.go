package podworker_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/podworker"
	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

func TestLogsOfPodsThatAreGoneAreRemoved(t *testing.T) {
	root := t.TempDir()
	w := &podworker.Worker{}
	w.Node = criconfig.Node{LogRoot: filepath.Join(root, "none")}
	if err := w.OrphanLogs(func(types.UID) bool { return false }); err != nil {
		t.Errorf("before there are any logs: %v", err)
	}

	w.Node.LogRoot = root
	w.Links = t.TempDir()
	for _, l := range []string{"ns_live_u1/c/0.log", "ns_gone_u2/c/0.log"} {
		if err := os.Symlink(filepath.Join(root, l), filepath.Join(w.Links, filepath.Dir(filepath.Dir(l)))); err != nil {
			t.Fatal(err)
		}
	}

	if err := os.Symlink("/somewhere/else", filepath.Join(w.Links, "of others")); err != nil {
		t.Fatal(err)
	}

	for _, d := range []string{"ns_live_u1/c", "ns_gone_u2/c", "ns_half-gone_u3", "something else"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}

	if err := w.OrphanLogs(func(uid types.UID) bool { return uid == "u1" }); err != nil {
		t.Fatal(err)
	}

	for dir, want := range map[string][]string{
		root:    {"ns_live_u1", "something else"},
		w.Links: {"ns_live_u1", "of others"},
	} {
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}

		var names []string
		for _, e := range left {
			names = append(names, e.Name())
		}

		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("%s: %s", dir, diff)
		}
	}
}

func TestLogsAreLinkedWhileTheirContainersAreThere(t *testing.T) {
	s, c, root := runtimetest.Start(t), newCluster(t), t.TempDir()
	c.start(s, root)
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})

	// the link's name would be too long
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
		c.waitFor(uid, "forgotten", func(*v1.Pod) bool {
			c.mu.Lock()
			defer c.mu.Unlock()

			return slices.Contains(c.forgotten, uid)
		})
	}

	if left := links(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

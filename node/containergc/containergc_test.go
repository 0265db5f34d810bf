package containergc

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/podlog"
	"github.com/trivet-node/trivet/node/runtime"
)

// node is a runtime, the API's pods and the events that were sent.
type node struct {
	state
	pods    []*v1.Pod
	refused string // the ID of what cannot be removed
	calls   []string
	events  []string
}

func (n *node) Containers(context.Context, runtime.Selection) ([]runtime.Container, error) {
	return n.containers, nil
}

func (n *node) Sandboxes(context.Context, runtime.Selection) ([]runtime.Sandbox, error) {
	return n.sandboxes, nil
}

func (n *node) call(what, id string) error {
	n.calls = append(n.calls, what+" "+id)
	if id == n.refused {
		return errors.New("busy")
	}
	return nil
}

func (n *node) RemoveContainer(_ context.Context, id string) error { return n.call("remove", id) }
func (n *node) StopSandbox(_ context.Context, id string) error     { return n.call("stop", id) }
func (n *node) RemoveSandbox(_ context.Context, id string) error   { return n.call("remove", id) }

func (n *node) List() []*v1.Pod { return n.pods }

func (n *node) Get(uid types.UID) *v1.Pod {
	for _, p := range n.pods {
		if p.UID == uid {
			return p
		}
	}
	return nil
}

func (n *node) Record(about v1.ObjectReference, kind, reason, message string) {
	n.events = append(n.events, strings.Join([]string{about.Name, kind, reason, message}, " "))
}

// start returns a collector of a world, and the logs of the node: each container has one, with a link.
func start(t *testing.T, text string) (*Collector, *node, podlog.Logs) {
	t.Helper()
	n := &node{state: world(text)}
	logs := podlog.Logs{Root: t.TempDir(), Links: t.TempDir()}
	for _, s := range n.sandboxes {
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop",
			Name:      s.Pod.UID,
			UID:       types.UID(s.Pod.UID),
		}}
		switch n.fate(pod.UID) {
		case ended:
			pod.Status.Phase = v1.PodSucceeded
		case evicted:
			pod.Status.Phase, pod.Status.Reason = v1.PodFailed, "Evicted"
		}
		n.pods = append(n.pods, pod)
	}

	for i := range n.containers {
		c := &n.containers[i]
		c.ID = strings.NewReplacer("/", "", ".", "").Replace(c.ID)
		one := podlog.Instance{
			Pod:       n.Get(types.UID(c.Pod.UID)),
			Container: c.Name,
			Attempt:   c.Attempt,
			ID:        c.ID,
		}

		if err := errors.Join(logs.MakeDir(one.Pod, c.Name), logs.Link(one)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(podlog.Dir(logs.Root, one.Pod), podlog.File(c.Name, c.Attempt))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	return New(Config{
		Policy:  Policy{PerContainer: 1, Total: -1},
		Node:    "n1",
		Runtime: n,
		Pods:    n,
		Logs:    logs,
		Events:  n,
		Log:     slog.New(slog.DiscardHandler),
	}), n, logs
}

// list returns the names in a directory.
func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestAnEvictedPodGivesUpItsContainersAndLogs(t *testing.T) {
	c, n, logs := start(t, "p:evicted p/a.1 p/b.2 q:ended q/a.3 r:live r/a.4+")
	// What is not of a container of this node is not looked at.
	if err := os.Symlink("/nowhere", filepath.Join(logs.Links, "x_shop_a-id.log")); err != nil {
		t.Fatal(err)
	}
	if err := c.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}

	want := []string{"remove pb2", "remove pa1", "stop box-p", "remove box-p"}
	if !slices.Equal(n.calls, want) {
		t.Errorf("calls %q, want %q", n.calls, want)
	}
	if got := list(t, logs.Root); !slices.Equal(got, []string{"shop_q_q", "shop_r_r"}) {
		t.Errorf("logs %q", got)
	}
	if got := list(t, logs.Links); !slices.Equal(got, []string{"q_shop_a-qa3.log", "r_shop_a-ra4.log",
		"x_shop_a-id.log"}) {
		t.Errorf("links %q", got)
	}
}

func TestSpaceThatIsNeededIsTakenFromEndedPods(t *testing.T) {
	c, n, logs := start(t, "q:ended q/a.3 r:live r/a.4+")
	if err := c.ReclaimContainers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"remove qa3", "stop box-q", "remove box-q"}; !slices.Equal(n.calls, want) {
		t.Errorf("calls %q, want %q", n.calls, want)
	}
	if got := list(t, logs.Links); !slices.Equal(got, []string{"r_shop_a-ra4.log"}) {
		t.Errorf("links %q", got)
	}
	if got := list(t, filepath.Join(logs.Root, "shop_q_q/a")); len(got) > 0 {
		t.Errorf("logs %q", got)
	}
}

func TestWhatCannotBeRemovedDoesNotKeepTheRest(t *testing.T) {
	c, n, _ := start(t, "p:evicted p/a.1 p/b.2")
	n.refused = "pb2"
	err := c.Collect(t.Context())
	if err == nil || !strings.Contains(err.Error(), "remove container pb2: busy") {
		t.Errorf("error %v", err)
	}
	if !slices.Contains(n.calls, "remove pa1") {
		t.Errorf("calls %q", n.calls)
	}
	if want := []string{"n1 Warning ContainerGCFailed " + err.Error()}; !slices.Equal(n.events, want) {
		t.Errorf("events %q, want %q", n.events, want)
	}
}

func TestALinkGoesWithItsContainerAndNotDuringARotation(t *testing.T) {
	c, n, logs := start(t, "r:live r/a.4+ r/b.5+")
	for _, name := range []string{"a", "b"} {
		if err := os.Remove(filepath.Join(logs.Root, "shop_r_r", name, "0.log")); err != nil {
			t.Fatal(err)
		}
	}

	// The log of a is just being rotated. b was removed by an agent that did not live to remove its link.
	n.containers = n.containers[:1]
	if err := c.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := list(t, logs.Links); !slices.Equal(got, []string{"r_shop_a-ra4.log"}) {
		t.Errorf("links %q", got)
	}
}

package podworker_test

import (
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/podworker"
	"github.com/trivet-node/trivet/node/runtime/runtimetest"
	"github.com/trivet-node/trivet/node/userns"
)

// users gives pods their user namespaces, with records below root.
func (c *cluster) users(root string) podworker.Users {
	c.t.Helper()
	users, err := userns.Open(userns.Config{
		RootDir:  root,
		Range:    userns.Range{First: 1 << 16, Length: 1 << 16},
		PerPod:   1 << 16,
		Handlers: c.runtimeHandlers,
		Log:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return users
}

// handlersWith are the usual one alone, which has user namespaces or not.
func handlersWith(users bool) []v1.NodeRuntimeHandler {
	return []v1.NodeRuntimeHandler{{Features: &v1.NodeRuntimeHandlerFeatures{UserNamespaces: &users}}}
}

func TestPodKeepsItsUsersAsLongAsItIsThere(t *testing.T) {
	s, c, root := runtimetest.Start(t), newCluster(t), t.TempDir()
	stop := c.start(s, root)
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
	pod.Spec.HostUsers = new(false)
	c.mount(nil, handlersWith(true))
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)

	// /etc/hosts and the termination message are mounts, too.
	want := []string{"sandbox 65536", "container 65536", "mount 65536", "mount 65536"}
	if got := s.Mapped(); !slices.Equal(got, want) {
		t.Errorf("made with users: %v, want %v", got, want)
	}

	stop()
	c.start(s, root)
	s.Exit("app", 1)
	c.waitFor(pod.UID, "restarted", func(p *v1.Pod) bool {
		return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})

	if got := s.Mapped()[len(want):]; !slices.Equal(got, want[1:]) {
		t.Errorf("after the restart: %v", got)
	}

	c.occupy(1)
	c.remove(pod.UID, 0)
	c.waitFor(pod.UID, "gone", gone)
	c.leavesNothing(pod.UID, s)
	if c.occupied != 0 {
		t.Error("the control group was not removed")
	}
	if _, err := os.Stat(root + "/pods/uid-1/userns"); err == nil {
		t.Error("the record is left")
	}
}

func TestPodWhoseHandlerHasNoUserNamespacesDoesNotStart(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.mount(nil, handlersWith(false))
	c.start(s, t.TempDir())
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
	pod.Spec.HostUsers = new(false)
	c.put(pod)
	c.waitForEvent(pod.UID, "FailedCreatePodSandBox")
	if calls := strings.Join(s.Calls(), " "); strings.Contains(calls, "RunPodSandbox") {
		t.Errorf("calls: %s", calls)
	}
}

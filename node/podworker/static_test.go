package podworker_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/manifest"
	"github.com/trivet-node/trivet/node/queue"
	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

// static is a pod as its manifest makes it.
func static(uid types.UID, container string) *v1.Pod {
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: container, Image: "run"})
	pod.UID = uid
	pod.Namespace = "kube-system"
	pod.Name = "etcd-node1"
	pod.Annotations = map[string]string{manifest.AnnotationSource: manifest.SourceFile}
	pod.Spec.TerminationGracePeriodSeconds = new(int64(1))
	return pod
}

// replace takes a static pod's manifest away, and brings another one.
func (c *cluster) replace(old types.UID, pod *v1.Pod) {
	c.mu.Lock()
	delete(c.pods, old)
	c.mu.Unlock()
	c.put(pod)
	c.look(old, queue.PodChanged)
}

// unheard is a cluster whose API server does not answer.
func unheard(t *testing.T) *cluster {
	c := newCluster(t)
	c.synced = make(chan struct{})
	return c
}

func TestStaticPodStartsWithoutTheAPIServer(t *testing.T) {
	s, c := runtimetest.Start(t), unheard(t)
	c.start(s, t.TempDir())
	c.put(static("uid-a", "apiserver"))
	c.waitForEvent("uid-a", "Started apiserver")
	s.Exit("apiserver", 1)
	s.Await(t, "StartContainer apiserver/1")
}

func TestStaticPodWhoseManifestIsGoneEndsWithoutTheAPIServer(t *testing.T) {
	s, c := runtimetest.Start(t), unheard(t)
	root := t.TempDir()
	stop := c.start(s, root)
	c.put(static("uid-a", "etcd"))
	c.put(newPod(v1.RestartPolicyAlways, v1.Container{Name: "web", Image: "run"}))
	c.waitForEvent("uid-a", "Started etcd")

	stop()
	// The other pod is only not known yet.
	c.mu.Lock()
	clear(c.pods)
	c.mu.Unlock()
	c.start(s, root)
	s.Await(t, "StopContainer etcd/0 2")
	c.waitUntilForgotten("uid-a")

	stops := slices.DeleteFunc(s.Calls(), func(call string) bool {
		return !strings.HasPrefix(call, "StopPodSandbox")
	})
	if len(stops) != 1 {
		t.Errorf("a pod of the API was ended before the API said which pods there are: %q", stops)
	}
}

func TestChangedManifestWaitsForThePodItReplaces(t *testing.T) {
	t.Parallel()
	for when, restart := range map[string]bool{"running": false, "down": true} {
		t.Run("while the agent is "+when, func(t *testing.T) {
			t.Parallel()
			s, c := runtimetest.Start(t), unheard(t)
			s.Stubborn("old")
			root := t.TempDir()
			stop := c.start(s, root)
			c.put(static("uid-a", "old"))
			c.waitForEvent("uid-a", "Started old")

			if restart {
				stop()
			}

			c.replace("uid-a", static("uid-b", "new"))
			if restart {
				c.start(s, root)
			}

			c.waitForEvent("uid-b", "Started new")
			calls := s.Calls()
			ended := slices.Index(calls, "StopPodSandbox sandbox1")
			if begun := slices.Index(calls, "StartContainer new/0"); ended < 0 || begun < ended {
				t.Errorf("the new pod began before the old one was down: %q", calls)
			}
		})
	}
}

// What is left then holds neither ports nor files, and its removal may fail for long.
func TestChangedManifestDoesNotWaitForTheRemovalOfSandboxes(t *testing.T) {
	for when, restart := range map[string]bool{"running": false, "down": true} {
		t.Run("while the agent is "+when, func(t *testing.T) {
			s, c := runtimetest.Start(t), unheard(t)
			s.FailOn("RemovePodSandbox", context.DeadlineExceeded)
			root := t.TempDir()
			stop := c.start(s, root)
			c.put(static("uid-a", "old"))
			c.waitForEvent("uid-a", "Started old")

			if restart {
				stop()
			}

			c.replace("uid-a", static("uid-b", "new"))
			if restart {
				c.start(s, root)
			}

			c.waitForEvent("uid-b", "Started new")
			s.Await(t, "RemovePodSandbox sandbox1")
			s.FailOn("RemovePodSandbox", nil)
			c.waitUntilForgotten("uid-a")
		})
	}
}

// The pod has no sandbox yet, so the runtime does not know of it.
func TestManifestChangedBeforeItsPodBegan(t *testing.T) {
	s, c := runtimetest.Start(t), unheard(t)
	s.FailOn("RunPodSandbox", context.DeadlineExceeded)
	c.start(s, t.TempDir())
	c.put(static("uid-a", "old"))
	c.waitForEvent("uid-a", "FailedCreatePodSandBox")
	s.FailOn("RunPodSandbox", nil)
	c.replace("uid-a", static("uid-b", "new"))
	c.waitForEvent("uid-b", "Started new")
	c.mu.Lock()
	defer c.mu.Unlock()

	if slices.Contains(c.events, "Started old") {
		t.Error("the pod whose manifest is gone was started")
	}
}

// People restart a pod of the control plane so: they move its manifest away and back.
func TestManifestThatComesBackBeforeItsPodHasGone(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	s.Stubborn("etcd")
	c.start(s, t.TempDir())
	c.put(static("uid-a", "etcd"))
	c.waitFor("uid-a", "running", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodRunning })

	c.mu.Lock()
	pod := c.pods["uid-a"]
	delete(c.pods, "uid-a")
	c.mu.Unlock()
	c.look("uid-a", queue.PodChanged)
	c.waitForEvent("uid-a", "Killing etcd")
	c.put(pod)

	s.Await(t, "RemovePodSandbox sandbox1")
	c.waitForCount("Started etcd", 2)
}

// waitForCount waits until an event was sent so many times.
func (c *cluster) waitForCount(event string, count int) {
	c.t.Helper()
	c.waitFor("uid-a", event, func(p *v1.Pod) bool {
		c.mu.Lock()
		defer c.mu.Unlock()

		have := 0
		for _, e := range c.events {
			if e == event {
				have++
			}
		}

		return have >= count
	})
}

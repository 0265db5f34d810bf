package podworker_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

func TestPodLivesAndLeavesNothing(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	pod := newPod(
		v1.RestartPolicyAlways,
		v1.Container{Name: "app", Image: "run"},
		v1.Container{Name: "two", Image: "run"},
	)

	pod.Spec.InitContainers = []v1.Container{
		{Name: "first", Image: "exit:0"},
		{Name: "side", Image: "run", RestartPolicy: new(v1.ContainerRestartPolicyAlways)},
	}

	c.put(pod)
	p := c.waitFor(pod.UID, "ready", ready)
	if p.Status.Phase != v1.PodRunning || p.Status.PodIP == "" || p.Status.HostIP != "192.0.2.1" ||
		len(p.Status.ContainerStatuses) != 2 || p.Status.ObservedGeneration != 1 {
		t.Errorf("status %+v", p.Status)
	}

	c.remove(pod.UID, 30)
	c.waitFor(pod.UID, "gone", gone)
	var order []string
	for _, call := range s.Calls() {
		if verb, name, _ := strings.Cut(call, " "); verb == "StartContainer" || verb == "StopContainer" {
			order = append(order, verb[:4]+" "+strings.Fields(name)[0])
		}
	}

	stops := order[len(order)-3:]
	// Application containers stop side by side
	slices.Sort(stops[:2])
	want := []string{
		"Star first/0", "Star side/0", "Star app/0", "Star two/0", "Stop app/0", "Stop two/0", "Stop side/0",
	}
	if !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}

	c.leavesNothing(pod.UID, s)
	if !slices.Contains(c.down, pod.UID) {
		t.Error("volumes were not torn down")
	}
}

// A quiet pod is looked at for nothing but its volumes; other, earlier looks must not make that be forgotten.
func TestVolumesAreRenewedPeriodically(t *testing.T) {
	t.Parallel()
	s := runtimetest.Start(t)
	c := newCluster(t)
	// More than the worker waits to show a status.
	c.renewal = time.Second
	c.start(s, t.TempDir())
	c.put(newPod(v1.RestartPolicyAlways, v1.Container{Name: "a", Image: "img"}))
	c.waitFor("uid-1", "ready", ready)
	c.waitFor("uid-1", "set up three times", func(*v1.Pod) bool {
		c.mu.Lock()
		defer c.mu.Unlock()

		return c.setups >= 3
	})
}

func TestContainerThatEndsIsRestartedAndCounted(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)
	s.Exit("app", 3)
	p := c.waitFor(
		pod.UID,
		"restarted",
		func(p *v1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1 },
	)
	if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil ||
		last.ExitCode != 3 || last.Reason != "Error" {
		t.Errorf("last state %+v", last)
	}

	s.Exit("app", 3)
	p = c.waitFor(
		pod.UID,
		"backing off",
		func(p *v1.Pod) bool { return p.Status.ContainerStatuses[0].State.Waiting != nil },
	)
	if got := p.Status.ContainerStatuses[0].State.Waiting; got.Reason != "CrashLoopBackOff" ||
		!strings.HasPrefix(got.Message, "back-off 10s restarting failed container=app") {
		t.Errorf("waiting %+v", got)
	}
}

func TestPodThatEndsIsSucceededOrFailed(t *testing.T) {
	for image, phase := range map[string]v1.PodPhase{"exit:0": v1.PodSucceeded, "exit:7": v1.PodFailed} {
		s, c := runtimetest.Start(t), newCluster(t)
		c.start(s, t.TempDir())
		pod := newPod(v1.RestartPolicyNever, v1.Container{Name: "app", Image: image})
		c.put(pod)
		p := c.waitFor(pod.UID, string(phase), func(p *v1.Pod) bool { return p.Status.Phase == phase })
		if p.Status.ContainerStatuses[0].State.Terminated == nil {
			t.Errorf("status %+v", p.Status.ContainerStatuses)
		}
	}
}

func TestAgentThatWasKilledAdoptsWhatRuns(t *testing.T) {
	t.Parallel()
	s, c := runtimetest.Start(t), newCluster(t)
	root := t.TempDir()
	stop := c.start(s, root)
	pod := newPod(
		v1.RestartPolicyAlways,
		v1.Container{
			Name:  "app",
			Image: "run",
			ReadinessProbe: &v1.Probe{
				ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"true"}}},
			},
		},
	)

	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)
	stop()
	before := len(s.Calls())
	c.start(s, root)
	c.remove(pod.UID, 0)
	c.waitFor(pod.UID, "gone", gone)
	for _, call := range s.Calls()[before:] {
		if strings.HasPrefix(call, "StartContainer") || strings.HasPrefix(call, "RunPodSandbox") {
			t.Errorf("the new agent did %s", call)
		}
	}

	c.leavesNothing(pod.UID, s)
}

func TestPodDeletedWhileTheAgentWasDownIsRemoved(t *testing.T) {
	t.Parallel()
	s, c := runtimetest.Start(t), newCluster(t)
	root := t.TempDir()
	stop := c.start(s, root)
	hook := &v1.Lifecycle{
		PreStop: &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"say-goodbye"}}},
	}
	pod := newPod(v1.RestartPolicyAlways, v1.Container{
		Name:      "app",
		Image:     "run",
		Lifecycle: hook,
		Ports:     []v1.ContainerPort{{ContainerPort: 80}},
	})

	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)
	stop()
	c.mu.Lock()
	delete(c.pods, pod.UID)
	c.mu.Unlock()
	before := len(s.Calls())
	c.start(s, root)
	c.leavesNothing(pod.UID, s)
	if calls := s.Calls()[before:]; len(calls) < 2 || calls[0] != "ExecSync say-goodbye" ||
		calls[1] != "StopContainer app/0 30" {
		t.Errorf("calls %v", calls)
	}
}

// A look that began before the API's list was there must not take what it lacks for gone when it is.
func TestListThatComesDuringALookEndsNoPod(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	root := t.TempDir()
	stop := c.start(s, root)
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
	c.put(pod)
	c.late = c.waitFor(pod.UID, "ready", ready)
	stop()
	c.pods, c.synced = map[types.UID]*v1.Pod{}, make(chan struct{})
	before := len(s.Calls())
	c.start(s, root)
	c.waitFor(pod.UID, "known again", ready)
	c.remove(pod.UID, 0)
	c.waitFor(pod.UID, "gone", gone)
	for _, call := range s.Calls()[before:] {
		if strings.HasPrefix(call, "StopContainer") && call != "StopContainer app/0 2" {
			t.Errorf("the new agent did %s: it took the pod for one that the API does not know", call)
		}
	}
}

func TestForcedDeletionCutsALongStopShort(t *testing.T) {
	t.Parallel()
	s, c := runtimetest.Start(t), newCluster(t)
	s.Stubborn("app")
	c.start(s, t.TempDir())
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)
	c.remove(pod.UID, 600)
	s.Await(t, "StopContainer app/0 600")
	c.remove(pod.UID, 0)
	c.waitFor(pod.UID, "gone", gone)
	if got := slices.DeleteFunc(s.Calls(), func(call string) bool {
		return !strings.HasPrefix(
			call,
			"StopContainer",
		)
	}); !slices.Equal(got, []string{"StopContainer app/0 600", "StopContainer app/0 2"}) {
		t.Errorf("stops %v", got)
	}
}

func TestFailedPullShowsAndMissingVolumeWaits(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	s.FailOn("PullImage", context.DeadlineExceeded)
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
	c.put(pod)
	p := c.waitFor(pod.UID, "waiting for the image", func(p *v1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			p.Status.ContainerStatuses[0].State.Waiting.Reason == "ErrImagePull"
	})
	if p.Status.Phase != v1.PodPending {
		t.Errorf("phase %s", p.Status.Phase)
	}

	c.remove(pod.UID, 0)
	c.waitFor(pod.UID, "gone", gone)
}

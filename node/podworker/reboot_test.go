package podworker_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

// reboot runs a pod until the API shows it as wanted, and goes on with a runtime that knows nothing, as
// runtimes that keep their records in /run do after a reboot.
func reboot(t *testing.T, pod *v1.Pod, until func(*v1.Pod) bool) (*runtimetest.Server, *cluster) {
	t.Helper()
	c, root := newCluster(t), t.TempDir()
	stop := c.start(runtimetest.Start(t), root)
	c.put(pod)
	c.waitFor(pod.UID, "as it is before the reboot", until)
	stop()
	s := runtimetest.Start(t)
	c.start(s, root)
	return s, c
}

func containers(names ...string) (out []v1.Container) {
	for _, n := range names {
		image := "run"
		if strings.HasPrefix(n, "done") {
			image = "exit:0"
		}
		out = append(out, v1.Container{Name: n, Image: image})
	}
	return out
}

// status is that of the named container.
func status(p *v1.Pod, name string) v1.ContainerStatus {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if s.Name == name {
			return s
		}
	}
	return v1.ContainerStatus{}
}

func runs(name string, restarts int32) func(*v1.Pod) bool {
	return func(p *v1.Pod) bool {
		return p != nil && status(p, name).State.Running != nil && status(p, name).RestartCount == restarts
	}
}

// lost reports whether a container is shown to have ended with its node.
func lost(end *v1.ContainerStateTerminated) bool {
	return end != nil && end.ExitCode == 255 && end.Reason == "Unknown"
}

func TestPodThatNeverRestartsFailsWhenItsNodeReboots(t *testing.T) {
	s, c := reboot(t, newPod(v1.RestartPolicyNever, containers("app")...), runs("app", 0))
	p := c.waitFor("uid-1", "failed", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed })
	if end := status(p, "app").State.Terminated; !lost(end) || end.ContainerID == "" {
		t.Errorf("container %+v", status(p, "app"))
	}
	if calls := s.Calls(); len(calls) > 0 {
		t.Errorf("it ran again: %q", calls)
	}
}

func TestOnlyWhatFailedRestartsAfterAReboot(t *testing.T) {
	pod := newPod(v1.RestartPolicyOnFailure, containers("done", "app")...)
	s, c := reboot(t, pod, func(p *v1.Pod) bool {
		return runs("app", 0)(p) && status(p, "done").State.Terminated != nil
	})
	p := c.waitFor("uid-1", "restarted", runs("app", 1))
	if last := status(p, "app").LastTerminationState.Terminated; !lost(last) {
		t.Errorf("last state of what ran: %+v", last)
	}

	done := status(p, "done")
	if end := done.State.Terminated; end == nil || end.ExitCode != 0 || done.RestartCount != 0 {
		t.Errorf("what had succeeded: %+v", done)
	}

	for _, call := range s.Calls() {
		if strings.Contains(call, "done") || call == "PullImage exit:0" {
			t.Errorf("for what had succeeded: %s", call)
		}
	}
}

func TestRestartCountsGoOnAfterAReboot(t *testing.T) {
	pod := newPod(v1.RestartPolicyAlways, containers("app")...)
	pod.Spec.InitContainers = containers("done-first")
	s, c := reboot(t, pod, runs("app", 0))
	p := c.waitFor("uid-1", "restarted", runs("app", 1))
	if last := status(p, "app").LastTerminationState.Terminated; !lost(last) {
		t.Errorf("last state %+v", last)
	}

	// In a new sandbox init containers run again.
	s.Await(t, "StartContainer done-first/1")
}

func TestStaticPodCountsByItsLogsWhatTheAPIDoesNotTell(t *testing.T) {
	c, root := unheard(t), t.TempDir()
	stop := c.start(runtimetest.Start(t), root)
	c.put(static("uid-a", "etcd"))
	c.waitForEvent("uid-a", "Started etcd")
	log := filepath.Join(root, "logs", "kube-system_etcd-node1_uid-a", "etcd", "2.log")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	stop()
	s := runtimetest.Start(t)
	c.start(s, root)
	s.Await(t, "StartContainer etcd/3")
}

package container_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
)

func TestMain(m *testing.M) { os.Exit(nodetest.Main(m)) }

func TestPodLivesFromPullToRemoval(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	pod := n.Sandbox("life", nil)
	if again := n.Sandbox("life", nil); again.ID != pod.ID {
		t.Errorf("a repeated RunPodSandbox made %s beside %s", again.ID, pod.ID)
	}

	c := n.Run(pod, "app", []string{"sh", "-c", "echo out; echo $FROM_IMAGE; exec sleep 1000"}, nil)
	if s := n.Status(c); s.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Fatalf("state %s", s.State)
	}

	if out, code := n.Exec(c, "id -u; exit 3"); out != "0\n" || code != 3 {
		t.Errorf("exec: %q, code %d", out, code)
	}

	nodetest.Eventually(t, func() bool {
		log, _ := os.ReadFile(n.Dir + "/logs/app.log")
		return strings.Contains(string(log), "stdout F yes\n")
	})

	stats, err := n.Pods.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: c})
	if err != nil || stats.Stats.Memory.GetWorkingSetBytes().GetValue() == 0 {
		t.Errorf("stats: %v %v", stats, err)
	}

	for range 2 {
		if err := n.StopContainer(c, 0); err != nil {
			t.Fatal(err)
		}
	}

	if s := n.Status(c); s.State != runtimeapi.ContainerState_CONTAINER_EXITED || s.ExitCode != 137 {
		t.Errorf("after stop: %s, code %d", s.State, s.ExitCode)
	}

	for range 2 {
		if err := n.RemovePod(t.Context(), pod.ID); err != nil {
			t.Fatal(err)
		}
	}

	list, err := n.Pods.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil || len(list.Containers) != 0 {
		t.Errorf("left: %v %v", list, err)
	}
}

func TestProcessesOutliveTheServerAndItsKill(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	pod := n.Sandbox("outlive", nodetest.SharePID)
	lasting := n.Run(pod, "lasting", []string{"sleep", "1000"}, nil)
	short := n.Run(pod, "short", []string{"sh", "-c", "sleep 0.3; exit 7"}, nil)
	n.Kill()
	n.Start()
	if code := n.AwaitExit(short).ExitCode; code != 7 {
		t.Errorf("exit code %d", code)
	}
	if s := n.Status(lasting).State; s != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("state %s", s)
	}

	if _, code := n.Exec(lasting, "true"); code != 0 {
		t.Errorf("exec: code %d", code)
	}
}

func TestStartThatTheRuntimeFinishedWithoutTheServerIsSeen(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	pod := n.Sandbox("cut", nil)
	started := n.Create(pod, "started", []string{"sleep", "1000"}, nil)
	waiting := n.Create(pod, "waiting", []string{"sleep", "1000"}, nil)
	n.Kill()
	n.Crun("start", started)
	n.Start()
	if s := n.Status(started); s.State != runtimeapi.ContainerState_CONTAINER_RUNNING ||
		s.StartedAt < s.CreatedAt {
		t.Errorf("state %s, started at %d", s.State, s.StartedAt)
	}

	if s := n.Status(waiting); s.State != runtimeapi.ContainerState_CONTAINER_CREATED {
		t.Errorf("state of the one that was not started: %s", s.State)
	}
}

// A job whose command is not there has to fail, once, as with other runtimes: so the start fails, not the
// creation, and the container has ended.
func TestCommandThatIsNotThereFailsAtTheStart(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	pod := n.Sandbox("absent", nil)
	for name, command := range map[string][]string{
		"absent":    {"/bin/absent"},
		"in-path":   {"absent"},
		"directory": {"/etc"},
	} {
		before := n.Create(pod, "before-"+name, command, nil)
		id := n.Create(pod, name, command, nil)
		if s := n.Status(id); s.State != runtimeapi.ContainerState_CONTAINER_CREATED {
			t.Errorf("%s: state %s", name, s.State)
		}

		// What was refused outlives the server.
		if name == "absent" {
			n.Kill()
			n.Start()
		}

		for range 2 {
			if err := n.StartContainer(id); err == nil {
				t.Errorf("%s: it was started", name)
			}
		}

		s := n.Status(id)
		exited := s.State == runtimeapi.ContainerState_CONTAINER_EXITED && s.FinishedAt != 0
		if !exited || s.Reason != "StartError" || s.ExitCode != 128 {
			t.Errorf("%s: %s, %s, code %d, finished %d", name, s.State, s.Reason, s.ExitCode, s.FinishedAt)
		}

		// crun says "open executable", runc "exec:".
		if !strings.Contains(s.Message, "exec") {
			t.Errorf("%s: message %q does not name the command", name, s.Message)
		}

		// The first of them was never started.
		for _, id := range []string{before, id} {
			if err := errors.Join(n.StopContainer(id, 1), n.RemoveContainer(id)); err != nil {
				t.Error(err)
			}
		}
	}
}

// STOPSIGNAL is read at the creation: the image may be gone when the container is stopped.
func TestStopSignalIsThePods(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	pod := n.Sandbox("signal", nil)
	// Busybox's sh knows real-time signals by their numbers.
	script := "trap 'exit 37' 37; trap 'exit 15' TERM; echo up; while :; do sleep 0.05; done"
	id := n.Run(pod, "app", []string{"sh", "-c", script}, func(c *runtimeapi.ContainerConfig) {
		c.StopSignal = runtimeapi.Signal_SIGNAL_SIGRTMINPLUS3
	})
	nodetest.Eventually(t, func() bool {
		data, _ := os.ReadFile(n.Dir + "/logs/app.log")
		return strings.Contains(string(data), "up")
	})
	if err := n.StopContainer(id, 1<<40); err != nil {
		t.Fatal(err)
	}
	if s := n.Status(id); s.ExitCode != 37 {
		t.Errorf("exit code %d, want 37: it was stopped by another signal", s.ExitCode)
	}
}

// Process 1 does not get a signal that it does not catch yet, which once had a pod that was deleted while it
// started wait for the whole of its grace period.
func TestContainerThatHasJustBeenStartedIsAskedToEnd(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	pod := n.Sandbox("young", nil)
	script := "sleep 0.1; trap 'exit 7' TERM; while :; do sleep 0.05; done"
	for i := range 5 {
		id := n.Run(pod, fmt.Sprintf("young-%d", i), []string{"sh", "-c", script}, nil)
		if err := n.StopContainer(id, 1<<40); err != nil {
			t.Fatal(err)
		}
		if s := n.Status(id); s.ExitCode != 7 {
			t.Errorf("exit code %d, want 7 of the handler", s.ExitCode)
		}
	}
}

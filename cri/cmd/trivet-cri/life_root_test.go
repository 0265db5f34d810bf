package main

import (
	"errors"
	"os"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestPodLivesFromPullToRemoval(t *testing.T) {
	n := newNode(t)
	n.pull()
	pod, box := n.sandbox("life", nil)
	again, _ := n.sandbox("life", nil)
	if again != pod {
		t.Errorf("a repeated RunPodSandbox made %s beside %s", again, pod)
	}

	c := n.run(pod, box, "app", []string{"sh", "-c", "echo out; echo $FROM_IMAGE; exec sleep 1000"}, nil)
	if s := n.status(c); s.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Fatalf("state %s", s.State)
	}

	exec, err := n.pods.ExecSync(
		t.Context(),
		&runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"sh", "-c", "id -u; exit 3"}},
	)
	if err != nil || string(exec.Stdout) != "0\n" || exec.ExitCode != 3 {
		t.Errorf("exec: %v %v", exec, err)
	}

	log := ""
	eventually(t, func() bool {
		data, _ := os.ReadFile(n.dir + "/logs/app.log")
		log = string(data)
		return strings.Contains(log, "stdout F yes\n")
	})

	stats, err := n.pods.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: c})
	if err != nil || stats.Stats.Memory.GetWorkingSetBytes().GetValue() == 0 {
		t.Errorf("stats: %v %v", stats, err)
	}

	for range 2 {
		if _, err := n.pods.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{
			ContainerId: c,
			Timeout:     0,
		}); err != nil {
			t.Fatal(err)
		}
	}

	if s := n.status(c); s.State != runtimeapi.ContainerState_CONTAINER_EXITED || s.ExitCode != 137 {
		t.Errorf("after stop: %s, code %d", s.State, s.ExitCode)
	}

	for range 2 {
		if _, err := n.pods.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{
			PodSandboxId: pod,
		}); err != nil {
			t.Fatal(err)
		}

		if _, err := n.pods.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{
			PodSandboxId: pod,
		}); err != nil {
			t.Fatal(err)
		}
	}

	list, err := n.pods.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil || len(list.Containers) != 0 {
		t.Errorf("left: %v %v", list, err)
	}
}

func TestContainersOutliveTheServer(t *testing.T) {
	n := newNode(t)
	n.pull()
	pod, box := n.sandbox("outlive", func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	})
	lasting := n.run(pod, box, "lasting", []string{"sleep", "1000"}, nil)
	short := n.run(pod, box, "short", []string{"sh", "-c", "sleep 0.3; exit 7"}, nil)
	n.kill()
	n.start()
	eventually(t, func() bool { return n.status(short).State == runtimeapi.ContainerState_CONTAINER_EXITED })
	if code := n.status(short).ExitCode; code != 7 {
		t.Errorf("exit code %d", code)
	}
	if s := n.status(lasting).State; s != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("state %s", s)
	}

	if _, err := n.pods.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{
		ContainerId: lasting,
		Cmd:         []string{"true"},
	}); err != nil {
		t.Error(err)
	}
}

// A node agent that was killed between create and start removes such a container, and must not see it end: it
// would count as a restart.
func TestContainerThatNeverStartedIsRemovedWithoutAnEnd(t *testing.T) {
	n := newNode(t)
	n.pull()
	pod, box := n.sandbox("discarded", nil)
	stream, err := n.pods.GetContainerEvents(t.Context(), &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}

	events := make(chan runtimeapi.ContainerEventType, 100)
	go func() {
		for e, err := stream.Recv(); err == nil; e, err = stream.Recv() {
			events <- e.ContainerEventType
		}
	}()

	// once the events flow
	eventually(t, func() bool {

		// the same attempt again and again
		id := n.create(pod, box, "app", []string{"sleep", "1000"}, nil)
		if _, err := n.pods.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{
			ContainerId: id,
		}); err != nil {
			t.Fatal(err)
		}

		for {
			select {
			case e := <-events:
				if e == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
					t.Error("a container that never started is said to have stopped")
				}
				if e == runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT {
					return true
				}

			default:
				return false
			}
		}
	})
}

func TestUsersAndSandboxRules(t *testing.T) {
	n := newNode(t)
	n.pull()
	pod, box := n.sandbox("users", nil)
	c := n.run(pod, box, "app", []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.RunAsUsername = "web"
		c.Linux.SecurityContext.SupplementalGroups = []int64{6000}
	})

	out, err := n.pods.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"id"}})
	if err != nil {
		t.Fatal(err)
	}

	for _, want := range []string{"uid=1002", "gid=1003", "5000", "6000"} {
		if !strings.Contains(string(out.Stdout), want) {
			t.Errorf("id says %q, not %s", out.Stdout, want)
		}
	}

	if _, err := n.pods.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{
		PodSandboxId: pod,
	}); err != nil {
		t.Fatal(err)
	}

	if _, err := n.pods.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{
			Name: "late",
		}, Image: &runtimeapi.ImageSpec{Image: n.image}}}); err == nil {
		t.Error("a stopped sandbox took a container")
	}
}

// A job whose command is not there has to fail, once, as with other runtimes: so the start fails, not the
// creation, and the container has ended.
func TestCommandThatIsNotThereFailsAtTheStart(t *testing.T) {
	n := newNode(t)
	n.pull()
	pod, box := n.sandbox("absent", nil)
	for name, command := range map[string][]string{
		"absent":    {"/bin/absent"},
		"in-path":   {"absent"},
		"directory": {"/etc"},
	} {
		before := n.create(pod, box, "before-"+name, command, nil)
		id := n.create(pod, box, name, command, nil)
		if s := n.status(id); s.State != runtimeapi.ContainerState_CONTAINER_CREATED {
			t.Errorf("%s: state %s", name, s.State)
		}

		// the record outlives the server
		if name == "absent" {
			n.kill()
			n.start()
		}

		for range 2 {
			if err := n.startContainer(id); err == nil {
				t.Errorf("%s: it was started", name)
			}
		}

		s := n.status(id)
		exited := s.State == runtimeapi.ContainerState_CONTAINER_EXITED && s.FinishedAt != 0
		if !exited || s.Reason != "StartError" || s.ExitCode != 128 {
			t.Errorf("%s: %s, %s, code %d, finished %d", name, s.State, s.Reason, s.ExitCode, s.FinishedAt)
		}

		// "open executable" of crun, "exec:" of runc
		if !strings.Contains(s.Message, "exec") {
			t.Errorf("%s: message %q does not tell of the command", name, s.Message)
		}

		// one of them was never started
		for _, id := range []string{before, id} {
			if err := errors.Join(n.stopContainer(id, 1), n.removeContainer(id)); err != nil {
				t.Error(err)
			}
		}
	}
}

// STOPSIGNAL is read at the creation: the image may be gone when the container is stopped.
func TestStopSignalIsThePods(t *testing.T) {
	n := newNode(t)
	n.pull()
	pod, box := n.sandbox("signal", nil)
	// Busybox' sh knows real-time signals by their numbers.
	script := "trap 'exit 37' 37; trap 'exit 15' TERM; echo up; while :; do sleep 0.05; done"
	id := n.run(pod, box, "app", []string{"sh", "-c", script}, func(c *runtimeapi.ContainerConfig) {
		c.StopSignal = runtimeapi.Signal_SIGNAL_SIGRTMINPLUS3
	})
	eventually(t, func() bool {
		data, _ := os.ReadFile(n.dir + "/logs/app.log")
		return strings.Contains(string(data), "up")
	})
	if err := n.stopContainer(id, 1<<40); err != nil {
		t.Fatal(err)
	}
	if s := n.status(id); s.ExitCode != 37 {
		t.Errorf("exit code %d, want 37: it was stopped by another signal", s.ExitCode)
	}
}

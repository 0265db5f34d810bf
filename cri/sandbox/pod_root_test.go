package sandbox_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
)

func TestMain(m *testing.M) { os.Exit(nodetest.Main(m)) }

func TestPodWhoseSharedInitEndsIsNotReady(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	pod := n.Sandbox("init", nodetest.SharePID)
	c := n.Run(pod, "app", []string{"sleep", "1000"}, nil)
	if out, _ := n.Exec(c, "cat /proc/1/comm"); strings.TrimSpace(out) != "pause" {
		t.Fatalf("process 1 is %q", out)
	}

	// This command is killed with the namespace, so an error is as good as none.
	_, err := n.Pods.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{
		ContainerId: c,
		Cmd:         []string{"sh", "-c", "kill 1; sleep 1000"},
	})

	t.Log(err)
	awaitNotReady(t, n, pod)
	n.AwaitExit(c)
	_, err = n.CreateContainer(t.Context(), pod, n.Container(pod, "late", []string{"true"}))
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a container in it: %v", err)
	}

	again := n.Sandbox("init", nodetest.SharePID)
	if again.ID == pod.ID {
		t.Fatal("the pod got the same sandbox again")
	}
}

func TestPodWhoseSharedInitEndsWithoutAServerIsNotReady(t *testing.T) {
	n := nodetest.New(t)
	pod := n.Sandbox("init", nodetest.SharePID)
	_, initPid := n.PodStatus(pod.ID)
	n.Kill()
	if err := syscall.Kill(initPid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.Start()
	awaitNotReady(t, n, pod)
}

func awaitNotReady(t *testing.T, n *nodetest.Node, pod nodetest.Pod) {
	t.Helper()
	nodetest.Eventually(t, func() bool {
		state, _ := n.PodStatus(pod.ID)
		return state == runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	})
}

func TestFilesOfThePodAreOnDiskAndReadOnlyWithTheRoot(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	pod := n.Sandbox("files", func(c *runtimeapi.PodSandboxConfig) {
		c.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"192.0.2.1"}}
	})
	writer := n.Run(pod, "writer", []string{"sleep", "1000"}, nil)
	reader := n.Run(pod, "reader", []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.ReadonlyRootfs = true
	})

	for _, file := range []string{"/etc/resolv.conf", "/etc/hostname"} {
		if _, code := n.Exec(reader, "echo read >>"+file); code == 0 {
			t.Errorf("%s can be written in a read-only root", file)
		}
		if _, code := n.Exec(writer, "echo written >>"+file); code != 0 {
			t.Errorf("%s cannot be written", file)
		}
	}

	if out, code := n.Exec(reader, "echo x >/dev/shm/x && cat /etc/resolv.conf"); code != 0 ||
		out != "nameserver 192.0.2.1\nwritten\n" {
		t.Errorf("resolv.conf: %q, %d", out, code)
	}

	if data, err := os.ReadFile(n.Dir + "/lib/sandboxes/" + pod.ID + "/resolv.conf"); err != nil ||
		!strings.HasSuffix(string(data), "written\n") {
		t.Errorf("below the root directory: %q, %v", data, err)
	}

	if err := n.RemovePod(t.Context(), pod.ID); err != nil {
		t.Error(err)
	}

	if left, _ := filepath.Glob(n.Dir + "/lib/sandboxes/*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

package main

import (
	"os"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
)

func TestShutdownEndsServerAndMonitorWhenNoPodIsLeft(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	pod := n.Sandbox("stays", nil)
	n.Run(pod, "c", []string{"sleep", "1000"}, nil)
	out, err := n.Program("--shutdown").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "1 pods are left") {
		t.Errorf("with a pod: %v %s", err, out)
	}

	_, err = n.Pods.Version(t.Context(), &runtimeapi.VersionRequest{})
	if err != nil || len(n.Monitors()) != 1 {
		t.Errorf("after it was refused: %v, monitors %v", err, n.Monitors())
	}

	_, err = n.Pods.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.ID})
	if err != nil {
		t.Fatal(err)
	}

	// The second one finds nothing to do.
	for range 2 {
		if out, err := n.Program("--shutdown").CombinedOutput(); err != nil {
			t.Fatalf("without a pod: %v %s", err, out)
		}
	}

	if err := n.Cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v, which its supervisor takes for a failure", err)
	}

	nodetest.Eventually(t, func() bool { return len(n.Monitors()) == 0 })

	// Both can be started again.
	n.Start()
}

// Containers of a server whose records were lost are still the monitor's.
func TestShutdownIsRefusedWhileTheMonitorHasAContainer(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	pod := n.Sandbox("lost", nil)
	n.Run(pod, "c", []string{"sleep", "1000"}, nil)
	record := n.Dir + "/run/sandboxes/records/" + pod.ID + ".json"
	data, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(record); err != nil {
		t.Fatal(err)
	}

	out, err := n.Program("--shutdown").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "containers are left") {
		t.Errorf("with a container: %v %s", err, out)
	}
	if err := os.WriteFile(record, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

package main

import (
	"os"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestShutdownEndsServerAndMonitorWhenNoPodIsLeft(t *testing.T) {
	n := newNode(t)
	n.pull()
	pod, box := n.sandbox("stays", nil)
	n.run(pod, box, "c", []string{"sleep", "1000"}, nil)
	out, err := n.program("--shutdown").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "1 pods are left") {
		t.Errorf("with a pod: %v %s", err, out)
	}

	_, err = n.pods.Version(t.Context(), &runtimeapi.VersionRequest{})
	if err != nil || len(n.monitors()) != 1 {
		t.Errorf("after it was refused: %v, monitors %v", err, n.monitors())
	}

	_, err = n.pods.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod})
	if err != nil {
		t.Fatal(err)
	}

	// a second one finds nothing to do
	for range 2 {
		if out, err := n.program("--shutdown").CombinedOutput(); err != nil {
			t.Fatalf("without a pod: %v %s", err, out)
		}
	}

	if err := n.cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v, which its supervisor takes for a failure", err)
	}

	eventually(t, func() bool { return len(n.monitors()) == 0 })

	// and both can be started again
	n.start()
}

// Containers of a server whose records were lost are still the monitor's.
func TestShutdownIsRefusedWhileTheMonitorHasAContainer(t *testing.T) {
	n := newNode(t)
	n.pull()
	pod, box := n.sandbox("lost", nil)
	n.run(pod, box, "c", []string{"sleep", "1000"}, nil)
	record := n.dir + "/run/sandboxes/records/" + pod + ".json"
	data, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(record); err != nil {
		t.Fatal(err)
	}

	out, err := n.program("--shutdown").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "containers are left") {
		t.Errorf("with a container: %v %s", err, out)
	}
	if err := os.WriteFile(record, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

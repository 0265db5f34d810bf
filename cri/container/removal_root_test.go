package container_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
)

// slowCreate is an OCI runtime whose create waits for a file.
const slowCreate = `#!/bin/sh
case "$*" in *" create "*)
	touch %[1]s/creating
	while [ ! -e %[1]s/go ]; do sleep 0.01; done
esac
exec crun "$@"
`

// slowNode returns a node with the handler slow.
func slowNode(t *testing.T) *nodetest.Node {
	t.Helper()
	n := nodetest.New(t)
	n.Kill()
	slow := n.Dir + "/slow"
	if err := os.WriteFile(slow, fmt.Appendf(nil, slowCreate, n.Dir), 0o755); err != nil {
		t.Fatal(err)
	}

	n.Config = fmt.Sprintf("[runtimes.slow]\nprogram = %q\n", slow)
	n.Start()
	n.Pull()
	return n
}

// A client that gave up a creation (its deadline passed, or the pod is not wanted any more) removes the pod
// next.
func TestPodIsRemovedWithTheContainerThatIsStillBeingCreated(t *testing.T) {
	n := slowNode(t)
	pod := n.SandboxOf("slow", "unfinished", nil)
	ctx, giveUp := context.WithCancel(t.Context())
	created := make(chan error, 1)
	go func() {
		_, err := n.CreateContainer(ctx, pod, n.Container(pod, "app", []string{"sleep", "1000"}))
		created <- err
	}()

	nodetest.Eventually(t, func() bool {
		select {
		case err := <-created:
			t.Fatalf("the creation ended: %v", err)
		default:
		}

		_, err := os.Stat(n.Dir + "/creating")
		return err == nil
	})

	giveUp()
	if err := <-created; err == nil {
		t.Error("a creation succeeded that was given up")
	}

	removed := make(chan error, 1)
	go func() { removed <- n.RemovePod(t.Context(), pod.ID) }()

	nodetest.Eventually(t, func() bool {
		request := &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod.ID}
		s, err := n.Pods.PodSandboxStatus(t.Context(), request)
		return err != nil || s.Status.State == runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	})
	if err := os.WriteFile(n.Dir+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := <-removed; err != nil {
		t.Error(err)
	}

	for _, dir := range []string{
		"containers/records",
		"sandboxes/records",
		"monitor/containers",
		"oci/slow",
	} {
		left, err := os.ReadDir(filepath.Join(n.Dir, "run", dir))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left, %v", dir, left, err)
		}
	}
}

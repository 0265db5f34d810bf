package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// slowCreate is an OCI runtime whose create waits for a file.
const slowCreate = `#!/bin/sh
case "$*" in *" create "*)
	touch %[1]s/creating
	while [ ! -e %[1]s/go ]; do sleep 0.01; done
esac
exec crun "$@"
`

// A client that gave up a creation (its deadline passed, or the pod is not wanted any more) removes the pod next.
func TestPodIsRemovedWithTheContainerThatIsStillBeingCreated(t *testing.T) {
	n := newNode(t)
	n.kill()
	slow := n.dir + "/slow"
	if err := os.WriteFile(slow, fmt.Appendf(nil, slowCreate, n.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	n.config = fmt.Sprintf("[runtimes.slow]\nprogram = %q\n", slow)
	n.start()
	n.pull()

	pod, box := n.sandboxOf("slow", "unfinished")
	ctx, giveUp := context.WithCancel(t.Context())
	created := make(chan error, 1)
	go func() {
		_, err := n.pods.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
			PodSandboxId:  pod,
			SandboxConfig: box,
			Config: &runtimeapi.ContainerConfig{
				Metadata: &runtimeapi.ContainerMetadata{Name: "app"},
				Image:    &runtimeapi.ImageSpec{Image: n.image},
				Command:  []string{"sleep", "1000"},
				Linux: &runtimeapi.LinuxContainerConfig{
					SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
						NamespaceOptions: box.Linux.SecurityContext.NamespaceOptions,
					},
				},
			},
		})
		created <- err
	}()
	eventually(t, func() bool {
		select {
		case err := <-created:
			t.Fatalf("the creation ended: %v", err)
		default:
		}
		return isThere(n.dir + "/creating")
	})
	giveUp()
	if err := <-created; err == nil {
		t.Error("a creation succeeded that was given up")
	}

	removed := make(chan error, 1)
	go func() {
		_, err := n.pods.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod})
		if err == nil {
			_, err = n.pods.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod})
		}
		removed <- err
	}()
	eventually(t, func() bool {
		s, err := n.pods.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
		return err != nil || s.Status.State == runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	})
	if err := os.WriteFile(n.dir+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := <-removed; err != nil {
		t.Error(err)
	}
	for _, dir := range []string{"containers/records", "sandboxes/records", "monitor/containers", "oci/slow"} {
		left, err := os.ReadDir(filepath.Join(n.dir, "run", dir))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left, %v", dir, left, err)
		}
	}
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// sandboxOf makes a sandbox of a handler.
func (n *node) sandboxOf(handler, name string) (string, *runtimeapi.PodSandboxConfig) {
	n.tb.Helper()
	box := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "test", Uid: name},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{
					Network: runtimeapi.NamespaceMode_NODE,
					Pid:     runtimeapi.NamespaceMode_CONTAINER,
				},
			},
		},
	}
	request := &runtimeapi.RunPodSandboxRequest{Config: box, RuntimeHandler: handler}
	pod, err := n.pods.RunPodSandbox(n.tb.Context(), request)
	if err != nil {
		n.tb.Fatal(err)
	}
	return pod.PodSandboxId, box
}

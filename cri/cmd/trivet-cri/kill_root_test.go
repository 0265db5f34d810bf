package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
)

// churn makes pods and removes every second of them until a call fails, as it does when a process of the node
// is killed, or ctx ends.
func churn(ctx context.Context, n *nodetest.Node, name string) {
	for i := 0; ctx.Err() == nil; i++ {
		pid := runtimeapi.NamespaceMode_CONTAINER
		if i%3 == 0 {
			pid = runtimeapi.NamespaceMode_POD
		}

		config := &runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{
				Name:      name,
				Namespace: "test",
				Uid:       fmt.Sprintf("%s-%d", name, i),
			},
			LogDirectory: n.Dir + "/logs",
			Linux: &runtimeapi.LinuxPodSandboxConfig{
				CgroupParent: n.Group(),
				SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
					NamespaceOptions: &runtimeapi.NamespaceOption{Pid: pid},
				},
			},
		}
		if churnOnce(ctx, n, config, i%2 == 1) != nil {
			return
		}
	}
}

func churnOnce(
	ctx context.Context,
	n *nodetest.Node,
	config *runtimeapi.PodSandboxConfig,
	remove bool,
) error {
	made, err := n.Pods.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		return err
	}

	pod := nodetest.Pod{ID: made.PodSandboxId, Config: config}
	id, err := n.CreateContainer(ctx, pod, n.Container(pod, "app", []string{"sleep", "1000"}))
	if err != nil {
		return err
	}

	start := &runtimeapi.StartContainerRequest{ContainerId: id}
	if _, err := n.Pods.StartContainer(ctx, start); err != nil || !remove {
		return err
	}

	return n.RemovePod(ctx, pod.ID)
}

// TestKilledAtRandom kills the server, the monitor or both at random instants, while pods are made and
// removed.
func TestKilledAtRandom(t *testing.T) {
	n := nodetest.New(t)
	n.Network(nodetest.Leases)
	n.Pull()
	const rounds = 18
	for round := range rounds {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 2 {
			wg.Go(func() { churn(ctx, n, fmt.Sprintf("r%dw%d", round, i)) })
		}

		// Not a wait: it is the instant of the kill.
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
		if round%3 != 0 {
			n.KillMonitor()
		}
		if round%3 != 1 {
			n.Kill()
		}

		cancel()
		wg.Wait()
		if round%3 != 1 {
			n.Start()
		}
		if round%6 == 5 {
			n.RemoveAll(t.Context())
		}
	}

	// What a client that gave up has left half done is removed by the next start.
	n.Kill()
	n.Start()
	n.RemoveAll(t.Context())
	if left := n.Leftovers(); len(left) > 0 {
		t.Errorf("left: %s", strings.Join(left, "\n"))
	}
}

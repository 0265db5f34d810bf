package main

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// step is the n-th update of a container: more and less of everything in turns.
func step(n int64) *runtimeapi.LinuxContainerResources {
	n = n*37%100 + 1
	return &runtimeapi.LinuxContainerResources{
		CpuShares:          100 + n,
		CpuQuota:           10_000 + 1000*n,
		CpuPeriod:          100_000,
		MemoryLimitInBytes: (64 + n) << 20,
	}
}

// is reports whether resources are those of the n-th update.
func is(r *runtimeapi.LinuxContainerResources, n int64) bool {
	want := step(n)
	return r.CpuShares == want.CpuShares && r.CpuQuota == want.CpuQuota &&
		r.MemoryLimitInBytes == want.MemoryLimitInBytes
}

// updates is a client that updates one container until a call fails.
type updates struct {
	node *nodetest.Node
	id   string

	// done is the last update that was acknowledged, asked the last one that was asked for.
	done, asked int64
}

func (u *updates) run(ctx context.Context) {
	for u.asked = u.done + 1; u.update(ctx) == nil; u.asked++ {
		u.done = u.asked
	}
}

func (u *updates) update(ctx context.Context) error {
	_, err := u.node.Pods.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: u.id,
		Linux:       step(u.asked),
	})
	return err
}

// inForce returns the quota and the limit of memory that the kernel has of a container.
func inForce(t *testing.T, host *cgroup.Host, group string) (quota, memory int64) {
	t.Helper()
	number := func(controller, v1, v2 string) int64 {
		name := v1
		if host.V2 {
			name = v2
		}
		data, err := os.ReadFile(filepath.Join(host.Dir(controller, group), name))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.ParseInt(strings.Fields(string(data))[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}

	return number("cpu", "cpu.cfs_quota_us", "cpu.max"),
		number("memory", "memory.limit_in_bytes", "memory.max")
}

// rounds is how often the server is killed while it updates: TRIVET_KILLS, or a few.
func rounds(t *testing.T) int {
	t.Helper()
	text := os.Getenv("TRIVET_KILLS")
	if text == "" {
		return 20
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("TRIVET_KILLS: %v", err)
	}
	return n
}

// What the next server shows is what the kernel has: the update that was acknowledged last, or the one after
// it.
func TestKilledInMidUpdate(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	pod := n.Sandbox("updated", nil)
	id := n.Run(pod, "app", []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = step(0)
	})
	started := n.Status(id).StartedAt
	host, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}

	client := &updates{node: n, id: id}
	cutOff := 0
	for round := range rounds(t) {
		var running sync.WaitGroup
		running.Go(func() { client.run(t.Context()) })
		// The instant of the kill.
		<-time.After(time.Duration(rand.IntN(30_000)) * time.Microsecond)
		n.Kill()
		running.Wait()
		n.Start()

		if round%2 == 1 {
			// As a client does that heard no answer.
			if err := client.update(t.Context()); err != nil {
				t.Fatal(err)
			}

			client.done = client.asked
		}

		status := n.Status(id)
		shown := status.Resources.Linux
		if !is(shown, client.done) && !is(shown, client.asked) {
			t.Errorf("round %d: %v is shown; update %d was acknowledged", round, shown, client.done)
		}
		if is(shown, client.asked) && client.asked != client.done {
			cutOff++
		}

		quota, memory := inForce(t, host, n.Group()+"/"+id)
		if quota != shown.CpuQuota || memory != shown.MemoryLimitInBytes {
			t.Errorf("round %d: the kernel has %d, %d bytes; %v is shown", round, quota, memory, shown)
		}
		if status.State != runtimeapi.ContainerState_CONTAINER_RUNNING || status.StartedAt != started {
			t.Fatalf("round %d: the container is %s, started at %d", round, status.State, status.StartedAt)
		}

		client.done = client.asked
	}

	t.Logf("%d updates, %d of them finished by the next server", client.done, cutOff)
}

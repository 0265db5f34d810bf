package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// leases is a CNI plugin that keeps one file per pod that it joined, so that a test sees what was never
// released.
const leases = `#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' ;;
ADD) : >LEASES/$CNI_CONTAINERID; echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[{"address":"10.1.2.3/24","interface":0}]}' ;;
DEL) rm -f LEASES/$CNI_CONTAINERID ;;
esac
`

func (n *node) network() {
	n.tb.Helper()
	for _, dir := range []string{"plugins", "leases", "net.d"} {
		if err := os.MkdirAll(n.dir+"/"+dir, 0o755); err != nil {
			n.tb.Fatal(err)
		}
	}

	if err := os.WriteFile(n.dir+"/plugins/leases", []byte(strings.ReplaceAll(leases, "LEASES", n.dir+"/leases")), 0o755); err != nil {
		n.tb.Fatal(err)
	}
	if err := os.WriteFile(n.dir+"/net.d/10-test.conflist", []byte(`{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"leases"}]}`), 0o644); err != nil {
		n.tb.Fatal(err)
	}

	eventually(n.tb, func() bool {
		s, err := n.pods.Status(n.tb.Context(), &runtimeapi.StatusRequest{})
		return err == nil && s.Status.Conditions[1].Status
	})
}

// churn makes pods and removes them until a call fails, as it does when a process of the node is killed, or
// ctx ends.
func (n *node) churn(ctx context.Context, name string) {
	for i := 0; ctx.Err() == nil; i++ {
		pid := runtimeapi.NamespaceMode_CONTAINER
		if i%3 == 0 {
			pid = runtimeapi.NamespaceMode_POD
		}

		box := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{
			Name:      name,
			Namespace: "test",
			Uid:       fmt.Sprintf("%s-%d", name, i),
		}, LogDirectory: n.dir + "/logs",
			Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: n.group(),
				SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
					NamespaceOptions: &runtimeapi.NamespaceOption{Pid: pid},
				}}}

		pod, err := n.pods.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: box})
		if err != nil {
			return
		}

		c, err := n.pods.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod.PodSandboxId, SandboxConfig: box, Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "app"},
			Image:    &runtimeapi.ImageSpec{Image: n.image},
			Command:  []string{"sleep", "1000"},
			LogPath:  name + ".log",
		}})
		if err != nil {
			return
		}

		if _, err := n.pods.StartContainer(ctx, &runtimeapi.StartContainerRequest{
			ContainerId: c.ContainerId,
		}); err != nil {
			return
		}

		// the others are left to the next round
		if i%2 == 0 {
			continue
		}

		if _, err := n.pods.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{
			PodSandboxId: pod.PodSandboxId,
		}); err != nil {
			return
		}

		if _, err := n.pods.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{
			PodSandboxId: pod.PodSandboxId,
		}); err != nil {
			return
		}
	}
}

func (n *node) removeAll(ctx context.Context) {
	list, err := n.pods.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		n.tb.Fatal(err)
	}

	for _, p := range list.Items {
		if _, err := n.pods.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{
			PodSandboxId: p.Id,
		}); err != nil {
			n.tb.Errorf("stop %s: %v", p.Id, err)
		}

		if _, err := n.pods.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{
			PodSandboxId: p.Id,
		}); err != nil {
			n.tb.Errorf("remove %s: %v", p.Id, err)
		}
	}
}

// group is the cgroup of all pods.
func (n *node) group() string { return "/trivet-cri-test-" + filepath.Base(n.dir) }

// leftovers are the mounts, records, network leases, layers and cgroups of pods that are not there any more.
func (n *node) leftovers() (left []string) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); strings.HasPrefix(f[4], n.dir+"/") {
			left = append(left, "mount "+f[4])
		}
	}

	for _, pattern := range []string{"leases/*", "cni/results/*", "run/sandboxes/*", "run/sandboxes/records/*", "run/containers/*", "run/containers/records/*",
		"run/monitor/containers/*", "run/rootfs/records/*", "run/rootfs/mounts/*", "run/oci/*/*", "lib/rootfs/containers/*", "lib/sandboxes/*"} {
		found, _ := filepath.Glob(n.dir + "/" + pattern)
		for _, f := range found {
			if filepath.Base(f) != "records" {
				left = append(left, f)
			}
		}
	}

	for _, pattern := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		found, _ := filepath.Glob(pattern + n.group() + "/*/cgroup.procs")
		left = append(left, found...)
	}

	return left
}

// killMonitor ends the node's monitor without warning. What it was asked for just now may be half done.
func (n *node) killMonitor() {
	for _, pid := range n.monitors() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// TestKilledAtRandom kills the server, the monitor or both at random instants, while pods are made and
// removed.
func TestKilledAtRandom(t *testing.T) {
	n := newNode(t)
	n.network()
	n.pull()
	const rounds = 18
	for round := range rounds {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 2 {
			wg.Go(func() { n.churn(ctx, fmt.Sprintf("r%dw%d", round, i)) })
		}

		// the instant of the kill
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
		if round%3 != 0 {
			n.killMonitor()
		}
		if round%3 != 1 {
			n.kill()
		}

		cancel()
		wg.Wait()
		if round%3 != 1 {
			n.start()
		}
		if round%6 == 5 {
			n.removeAll(t.Context())
		}
	}

	// what a caller that gave up left undone is for the next start
	n.kill()
	n.start()
	n.removeAll(t.Context())
	if left := n.leftovers(); len(left) > 0 {
		t.Errorf("left: %s", strings.Join(left, "\n"))
	}
}

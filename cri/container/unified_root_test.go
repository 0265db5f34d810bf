package container_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// onUnified runs a test on nodes with cgroup v2 alone.
func onUnified(t *testing.T, test func(t *testing.T, n *nodetest.Node)) {
	host, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}
	if !host.V2 {
		t.Skip("cgroup v1 does not have what is tested (make vm)")
	}
	withRuntimes(t, test)
}

// limited are resources of so many bytes of memory, with files of v2.
func limited(memory int64, files map[string]string) func(*runtimeapi.ContainerConfig) {
	return resourcesOf(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: memory, Unified: files})
}

// script is a command that goes on after its lines.
func script(lines string) []string { return []string{"sh", "-c", lines + "; sleep 1000"} }

// held takes memory and keeps it: dd waits with a full block for somebody to read it. A kernel swaps no pages
// out that are zero: it lets them go (6.12, those of huge pages).
func held(megabytes int) string {
	return fmt.Sprintf("dd if=/dev/urandom bs=%dM count=1 | sleep 1000 &", megabytes) + " true"
}

// heldInParts takes memory and keeps it, 4 MB a second.
func heldInParts(megabytes int) string {
	return fmt.Sprintf("for i in $(seq %d); do %s; sleep 1; done", megabytes/4, held(4))
}

// count reads a counter of memory.events.
func (k kernel) count(name string) int {
	k.t.Helper()
	for line := range strings.Lines(k.file("memory", "", "memory.events")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.Atoi(value); key == name && err == nil {
			return n
		}
	}
	k.t.Fatalf("memory.events counts no %s", name)
	return 0
}

func statsOf(t *testing.T, n *nodetest.Node, id string) *runtimeapi.ContainerStats {
	t.Helper()
	r, err := n.Pods.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: id})
	if err != nil {
		t.Fatal(err)
	}
	return r.Stats
}

func TestContainerIsSlowedDownAboveItsHighMark(t *testing.T) {
	onUnified(t, func(t *testing.T, n *nodetest.Node) {
		files := map[string]string{"memory.high": "16777216", "memory.low": "8388608"}
		id := n.Run(podOf(n, "high"), "app", script(held(32)), limited(64<<20, files))
		k := kernelOf(t, n, id)
		for file, want := range files {
			if got := k.file("memory", "", file); got != want {
				t.Errorf("%s is %s, want %s", file, got, want)
			}
		}

		nodetest.Eventually(t, func() bool { return k.count("high") > 0 })
		if s := n.Status(id); s.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("it is %s", s.State)
		}
	})
}

// The shell goes on when dd is killed, if it is not killed with it.
const greed = "dd if=/dev/zero of=/dev/null bs=200M count=1"

func TestAnOOMKillIsOfAContainerOrOfOneProcess(t *testing.T) {
	onUnified(t, func(t *testing.T, n *nodetest.Node) {
		pod := podOf(n, "greed")
		together := n.Run(pod, "together", script(greed), limited(60<<20, map[string]string{
			"memory.oom.group": "1",
			"memory.swap.max":  "0",
		}))
		nodetest.Eventually(t, func() bool {
			return n.Status(together).State == runtimeapi.ContainerState_CONTAINER_EXITED
		})
		if s := n.Status(together); s.Reason != "OOMKilled" || s.ExitCode != 137 {
			t.Errorf("it ended as %s with code %d", s.Reason, s.ExitCode)
		}

		alone := n.Run(pod, "alone", script(greed), limited(60<<20, map[string]string{
			"memory.oom.group": "0",
			"memory.swap.max":  "0",
		}))
		k := kernelOf(t, n, alone)
		nodetest.Eventually(t, func() bool { return k.count("oom_kill") == 1 })
		if out, code := n.Exec(alone, "echo on"); out != "on\n" || code != 0 {
			t.Errorf("after the kill of one process: %q, code %d", out, code)
		}
	})
}

func TestStallsOfAContainerAreInItsStatistics(t *testing.T) {
	onUnified(t, func(t *testing.T, n *nodetest.Node) {
		const spin = "for i in 1 2 3 4; do while :; do :; done & done"
		id := n.Run(podOf(n, "busy"), "app", script(spin), nil)
		nodetest.Eventually(t, func() bool {
			s := statsOf(t, n, id)
			return s.GetCpu().GetPsi().GetSome().GetTotal() > 0 && s.GetMemory().GetPsi() != nil &&
				s.GetIo().GetPsi() != nil
		})
	})
}

func TestContainerSwapsAsMuchAsItMay(t *testing.T) {
	onUnified(t, func(t *testing.T, n *nodetest.Node) {
		area := os.Getenv("TRIVET_SWAP")
		if area == "" {
			t.Skip("would have the whole machine swap, and there is no area for it (TRIVET_SWAP of make vm)")
		}
		if out, err := exec.Command("swapon", area).CombinedOutput(); err != nil {
			t.Fatalf("swapon %s: %v: %s", area, err, out)
		}
		defer func() {
			if out, err := exec.Command("swapoff", area).CombinedOutput(); err != nil {
				t.Errorf("swapoff %s: %v: %s", area, err, out)
			}
		}()

		// Also after a Fatal: what it has swapped out would not fit into its limit.
		pod := podOf(n, "swap")
		defer func() {
			if err := n.RemovePod(t.Context(), pod.ID); err != nil {
				t.Error(err)
			}
		}()

		// Above the high mark who takes memory waits until the kernel has swapped some out: at the limit it
		// would kill, where the disk is slow.
		files := map[string]string{"memory.swap.max": "67108864", "memory.high": "16777216"}
		swaps := n.Run(pod, "swaps", script(heldInParts(48)), limited(32<<20, files))
		k := kernelOf(t, n, swaps)
		nodetest.Eventually(t, func() bool {
			if k.count("oom_kill") != 0 {
				t.Fatal("it is killed, and it could swap")
			}
			return statsOf(t, n, swaps).GetSwap().GetSwapUsageBytes().GetValue() > 8<<20
		})

		// A limit of memory without a word about swap is one without swap.
		stays := n.Run(pod, "stays", script(greed), limited(32<<20, nil))
		k = kernelOf(t, n, stays)
		nodetest.Eventually(t, func() bool { return k.count("oom_kill") > 0 })
		if used := k.file("memory", "", "memory.swap.current"); used != "0" {
			t.Errorf("%s bytes of the one without swap are swapped out", used)
		}
	})
}

package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// onUnified opens the cluster of a machine with cgroup v2.
func onUnified(t *testing.T) *cluster {
	t.Helper()
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		t.Skip("cgroup v1 does not have what is tested (make vm)")
	}
	return open(t)
}

// own reads a file of a container's control group, from inside of it.
func (c *cluster) own(pod, file string) string {
	c.t.Helper()
	return strings.TrimSpace(c.kubectl("exec", pod, "--", "cat", "/sys/fs/cgroup/"+file))
}

// has checks a file of a container's control group.
func (c *cluster) has(pod, file, want string) {
	c.t.Helper()
	if got := c.own(pod, file); got != want {
		c.t.Errorf("%s of pod %s is %s, want %s", file, pod, got, want)
	}
}

// event reads a counter of memory.events of a container.
func (c *cluster) event(pod, name string) int {
	c.t.Helper()
	for line := range strings.Lines(c.own(pod, "memory.events")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.Atoi(value); key == name && err == nil {
			return n
		}
	}
	c.t.Fatalf("pod %s counts no %s", pod, name)
	return 0
}

// number runs a script of the test's node that prints a number.
func (c *cluster) number(script string) int64 {
	c.t.Helper()
	n, err := strconv.ParseInt(strings.TrimSpace(c.onNode("", "%s", script)), 10, 64)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// swapOn has the machine swap until the end of the test.
func (c *cluster) swapOn() {
	c.t.Helper()
	area := os.Getenv("TRIVET_SWAP")
	if area == "" {
		c.t.Skip("would have the whole machine swap, and there is no area for it (TRIVET_SWAP of make vm)")
	}

	// An agent starts on a machine without swap, and goes on when there is some.
	c.settings(map[string]any{"failSwapOn": false})
	if out, err := exec.Command("swapon", area).CombinedOutput(); err != nil {
		c.t.Fatalf("swapon %s: %v: %s", area, err, out)
	}
	c.t.Cleanup(func() {
		// What they have swapped out would not fit into their limits.
		c.kubectl("delete", "pods", "--all")
		if out, err := exec.Command("swapoff", area).CombinedOutput(); err != nil {
			c.t.Errorf("swapoff %s: %v: %s", area, err, out)
		}
	})
}

const swapAll = `echo $(($(sed -n 's/SwapTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) * 1024))`

func TestBurstablePodsSwapTheirShare(t *testing.T) {
	c := onUnified(t)
	c.swapOn()
	c.settings(map[string]any{
		"failSwapOn": false,
		"memorySwap": map[string]any{"swapBehavior": "LimitedSwap"},
		// Above the high mark, of 80 MiB, the pod waits for the disk. At its limit it would be killed if the
		// disk is slower than it is.
		"memoryThrottlingFactor": 0.5,
	})

	c.eat(
		eater{
			name:    "burstable",
			script:  heldSlowly(100),
			request: `{"memory": "64Mi"}`,
			limit:   `{"memory": "96Mi"}`,
		},
		eater{name: "guaranteed", limit: `{"memory": "32Mi", "cpu": "100m"}`},
	)
	c.awaitEaten("burstable", "guaranteed")

	// The kernel counts in pages.
	all, swap := c.number(memoryAll), c.number(swapAll)
	share := int64(float64(64<<20)/float64(all)*float64(swap)) &^ 4095
	c.has("burstable", "memory.swap.max", strconv.FormatInt(share, 10))
	c.has("guaranteed", "memory.swap.max", "0")
	c.stayed("burstable", "guaranteed")

	const capacity = "jsonpath={.status.nodeInfo.swap.capacity}"
	c.eventually(time.Minute, "capacity of swap of the node", func() error {
		got, err := c.try("get", "node", c.node, "-o", capacity)
		if err == nil && got != strconv.FormatInt(swap, 10) {
			err = fmt.Errorf("%q, want %d", got, swap)
		}

		return err
	})

	c.eventually(time.Minute, "swap in the summary", func() error {
		used := c.container("burstable").Swap
		if used.SwapUsageBytes < 10<<20 || used.SwapUsageBytes+used.SwapAvailableBytes != uint64(share) {
			return fmt.Errorf("%+v, want more than 10 MiB of %d", used, share)
		}
		return nil
	})

	c.kubectl("patch", "pod", "burstable", "--subresource=resize", "--patch",
		`{"spec": {"containers": [{"name": "c", "resources": {"requests": {"memory": "60Mi"}}}]}}`)
	c.eventually(time.Minute, "refusal of a resize", func() error {
		got, err := c.try("get", "pod", "burstable", "-o",
			`jsonpath={.status.conditions[?(@.type=="PodResizePending")].reason}`)
		if err == nil && got != "Infeasible" {
			err = errors.New(got)
		}

		return err
	})
}

func TestMemoryIsThrottledAndProtected(t *testing.T) {
	c := onUnified(t)
	c.settings(map[string]any{
		"memoryThrottlingFactor":  0.5,
		"memoryReservationPolicy": "TieredReservation",
	})

	c.eat(
		eater{
			name:    "burstable",
			script:  held(54),
			request: `{"memory": "32Mi"}`,
			limit:   `{"memory": "64Mi"}`,
		},
		eater{name: "guaranteed", limit: `{"memory": "24Mi", "cpu": "100m"}`},
	)
	c.awaitEaten("burstable", "guaranteed")

	c.has("burstable", "memory.high", strconv.Itoa(48<<20))
	c.has("burstable", "memory.low", strconv.Itoa(32<<20))
	c.has("burstable", "memory.min", "0")
	c.has("guaranteed", "memory.high", "max")
	c.has("guaranteed", "memory.min", strconv.Itoa(24<<20))

	// A group is protected as far as those above it are: crun makes one of its own below the scope.
	const scopes = "grep -lx %d $(find /sys/fs/cgroup -path '*/trivet-*.scope/%s') | wc -l"
	if c.number(fmt.Sprintf(scopes, 24<<20, "memory.min")) != 1 ||
		c.number(fmt.Sprintf(scopes, 32<<20, "memory.low")) != 1 {
		t.Error("the scopes are not protected")
	}

	c.eventually(time.Minute, "throttling of the burstable pod", func() error {
		if c.event("burstable", "high") == 0 {
			return errors.New("memory.events counts none")
		}
		return nil
	})
	c.metric("container_memory_events_high_total", "burstable")
	c.stayed("burstable", "guaranteed")
}

func TestAnOOMKillEndsAContainerOrOneProcess(t *testing.T) {
	c := onUnified(t)

	// The shell goes on when dd is killed, if it is not killed with it.
	const greed = "dd if=/dev/zero of=/dev/null bs=200M count=1"
	c.eat(eater{name: "together", script: greed, limit: `{"memory": "60Mi"}`})
	c.eventually(time.Minute, "end of the container", func() error {
		got := c.show("together", "{.status.containerStatuses[0].state.terminated.reason}")
		if got != "OOMKilled" {
			return fmt.Errorf("it ended as %q", got)
		}
		return nil
	})

	c.settings(map[string]any{"singleProcessOOMKill": true})
	c.eat(eater{name: "alone", script: greed, limit: `{"memory": "60Mi"}`})
	c.awaitEaten("alone")
	if n := c.event("alone", "oom_kill"); n != 1 {
		t.Errorf("%d processes were killed, want one", n)
	}
	c.stayed("alone")
}

func TestStallsAreShown(t *testing.T) {
	c := onUnified(t)
	const spin = "for i in 1 2 3 4; do while :; do :; done & done"
	c.eat(eater{name: "busy", script: spin})
	c.awaitEaten("busy")

	c.eventually(time.Minute, "stalls in the summary", func() error {
		node, busy := c.summary().Node, c.container("busy")
		if node.CPU.PSI == nil || node.Memory.PSI == nil || node.IO.PSI == nil ||
			node.CPU.PSI.Some.Total == 0 {
			return fmt.Errorf("of the node: %+v", node)
		}

		if busy.CPU.PSI == nil || busy.Memory.PSI == nil || busy.IO.PSI == nil ||
			busy.CPU.PSI.Some.Total == 0 {
			return fmt.Errorf("of the container: %+v", busy)
		}

		return nil
	})
	c.metric("container_pressure_cpu_waiting_seconds_total", "busy")
}

// usage is what the summary of a node says of it or of a container, as far as it is tested here.
type usage struct {
	Name            string
	CPU, Memory, IO struct {
		PSI *struct{ Some struct{ Total uint64 } }
	}
	Swap struct{ SwapUsageBytes, SwapAvailableBytes uint64 }
}

// summary is /stats/summary of the test's node.
type summary struct {
	Node usage
	Pods []struct {
		PodRef     struct{ Name, Namespace string }
		Containers []usage
	}
}

func (c *cluster) summary() (s summary) {
	c.t.Helper()
	text := c.kubectl("get", "--raw", "/api/v1/nodes/"+c.node+"/proxy/stats/summary")
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		c.t.Fatal(err)
	}
	return s
}

// container waits until the summary has the only container of a pod.
func (c *cluster) container(pod string) (found usage) {
	c.t.Helper()
	c.eventually(time.Minute, "pod "+pod+" in the summary", func() error {
		for _, p := range c.summary().Pods {
			if p.PodRef.Namespace == c.namespace && p.PodRef.Name == pod && len(p.Containers) > 0 {
				found = p.Containers[0]
				return nil
			}
		}
		return errors.New("it is not there")
	})
	return found
}

// metric waits until /metrics/cadvisor has a metric of a pod's container that is not zero.
func (c *cluster) metric(name, pod string) {
	c.t.Helper()
	sample := regexp.MustCompile(`(?m)^` + name + `\{[^}]*container="c"[^}]*namespace="` + c.namespace +
		`"[^}]*pod="` + pod + `"[^}]*\} ([0-9.e+-]+)`)
	c.eventually(time.Minute, name+" of pod "+pod, func() error {
		text, err := c.try("get", "--raw", "/api/v1/nodes/"+c.node+"/proxy/metrics/cadvisor")
		if err != nil {
			return err
		}

		found := sample.FindStringSubmatch(text)
		if found == nil {
			return errors.New("there is none")
		}
		if value, err := strconv.ParseFloat(found[1], 64); err != nil || value == 0 {
			return fmt.Errorf("it is %s", found[1])
		}

		return nil
	})
}

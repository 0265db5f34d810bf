package scenario

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// kills is how often the agent is killed while it evicts: TRIVET_KILLS, or a few.
func kills(t *testing.T) int {
	text := os.Getenv("TRIVET_KILLS")
	if text == "" {
		return 6
	}

	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("TRIVET_KILLS: %v", err)
	}
	return n
}

// TestAgentKilledWhilePodsAreEvicted checks that nobody is evicted twice and nobody wrongly: in each round a
// disk is so full that all pods must go but the one that has asked for what it has, and one more exceeds its
// limit of local storage.
func TestAgentKilledWhilePodsAreEvicted(t *testing.T) {
	c := onDisk(t)
	const (
		mb   = 1000000
		hogs = 6
	)

	c.withoutImages()
	c.settings(map[string]any{
		"evictionHard": map[string]string{"nodefs.available": c.left(bytesLeft, 45*mb)},
	})

	left := kills(t)
	for round := 0; left > 0; round++ {
		good := fmt.Sprintf("good-%d", round)
		limited := fmt.Sprintf("limited-%d", round)
		all := []eater{
			{name: good, script: megabytes(18, "/n"), request: `{"ephemeral-storage": "20Mi"}`},
			{
				name:    limited,
				script:  megabytes(12, "/root"),
				request: `{"ephemeral-storage": "8Mi"}`,
				limit:   `{"ephemeral-storage": "8Mi"}`,
			},
		}

		over := []string{limited}
		for i := range hogs {
			hog := fmt.Sprintf("hog-%d-%d", round, i)
			all = append(all, eater{name: hog, script: megabytes(40+i, "/n")})
			over = append(over, hog)
		}

		c.eat(all...)
		// Each kill is a moment after one more of them has been evicted, while the next one is.
		for gone := 0; left > 0 && gone < hogs; left-- {
			gone = c.awaitMore(gone, over[1:])
			c.killAgent()
		}

		for _, p := range over {
			c.awaitEnd(p)
			c.evictedAtMostOnce(p)
		}

		c.stayed(good)
		c.kubectl("delete", "pods", "--all", "--wait=true", "--timeout=120s")
		c.pressed(disk, diskTaint, false)
	}
}

const endShown = "jsonpath={.status.phase} {.status.reason}"

// awaitMore waits until more than some of the pods have been evicted, and returns how many.
func (c *cluster) awaitMore(some int, pods []string) int {
	c.t.Helper()
	gone := 0
	c.eventually(time.Minute, "one more eviction", func() error {
		const each = `jsonpath={range .items[*]}{.metadata.name} {.status.phase} {.status.reason}{"\n"}{end}`
		out, err := c.try("get", "pods", "-o", each)
		if err != nil {
			return err
		}

		gone = 0
		for _, p := range pods {
			if strings.Contains(out, p+" Failed Evicted\n") {
				gone++
			}
		}
		if gone <= some {
			return fmt.Errorf("%d of %d are evicted", gone, len(pods))
		}

		return nil
	})

	return gone
}

// awaitEnd waits until a pod is evicted, and checks that none of its containers was started again.
func (c *cluster) awaitEnd(pod string) {
	c.t.Helper()
	c.eventually(2*time.Minute, "eviction of "+pod, func() error {
		got, err := c.try("get", "pod", pod, "-o", endShown)
		if err == nil && got != "Failed Evicted" {
			err = errors.New(got)
		}
		return err
	})

	// One that came when the node had become short already was never started.
	if n := c.restarts(pod); n != "" && n != "0" {
		c.t.Errorf("pod %s: its container was restarted %s times", pod, n)
	}
}

// evictedAtMostOnce checks the events of a pod that was evicted: an agent that is killed between what it does
// and what it says may say nothing, but not twice.
func (c *cluster) evictedAtMostOnce(pod string) {
	c.t.Helper()
	if n := c.evictions(pod); n > 1 {
		c.t.Errorf("pod %s has %d events Evicted, want one at most", pod, n)
	}
}

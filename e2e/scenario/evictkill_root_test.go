package scenario

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
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

// TestAgentKilledWhilePodsAreEvicted checks that nobody is evicted twice and nobody wrongly.
func TestAgentKilledWhilePodsAreEvicted(t *testing.T) {
	c := onDisk(t)
	const (
		sized   = `{"sizeLimit": "8Mi"}`
		limit   = `{"ephemeral-storage": "8Mi"}`
		perHead = 3
	)

	left := kills(t)
	for round := 0; left > 0; round++ {
		var over, under []string
		var all []eater
		for i := range perHead {
			layer := eater{
				name:   fmt.Sprintf("layer-%d-%d", round, i),
				script: megabytes(12, "/root"),
				limit:  limit,
			}

			dir := eater{name: fmt.Sprintf("dir-%d-%d", round, i), script: megabytes(12, "/n"), dir: sized}
			over = append(over, layer.name, dir.name)
			all = append(all, layer, dir)
		}

		good := eater{name: fmt.Sprintf("good-%d", round), script: megabytes(4, "/n"), dir: sized}
		under = append(under, good.name)
		c.eat(append(all, good)...)
		c.awaitEaten(good.name)

		for left > 0 && !c.allEvicted(over) {
			c.killAt(time.Duration(rand.IntN(900)) * time.Millisecond)
			left--
		}

		for _, p := range over {
			c.awaitEnd(p)
			c.evictedAtMostOnce(p)
		}

		c.awaitReady(time.Minute, under...)
		c.stayed(under...)
		c.kubectl("delete", "pods", "--all", "--wait=true", "--timeout=120s")
	}
}

// killAt kills the agent after a pause and starts it again.
func (c *cluster) killAt(pause time.Duration) {
	c.t.Helper()
	if err := retry.Sleep(c.t.Context(), pause); err != nil {
		c.t.Fatal(err)
	}
	c.do("kill", c.node, c.agent)
	c.do("start", c.node, c.agent)
}

const endShown = "jsonpath={.status.phase} {.status.reason}"

// allEvicted reports whether all the pods have been evicted by now.
func (c *cluster) allEvicted(pods []string) bool {
	c.t.Helper()
	for _, p := range pods {
		if c.kubectl("get", "pod", p, "-o", endShown) != "Failed Evicted" {
			return false
		}
	}
	return true
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
	c.neverRestarted(pod)
}

// evictedAtMostOnce checks the events of a pod that was evicted: an agent that is killed between what it does
// and what it says may say nothing, but not twice.
func (c *cluster) evictedAtMostOnce(pod string) {
	c.t.Helper()
	if n := c.evictions(pod); n > 1 {
		c.t.Errorf("pod %s has %d events Evicted, want one at most", pod, n)
	}
}

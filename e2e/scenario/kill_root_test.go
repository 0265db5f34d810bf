package scenario

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

func TestAgentKilledWhilePodsStart(t *testing.T) {
	c := open(t)
	var names []string
	for i := range 8 {
		names = append(names, fmt.Sprintf("p%d", i))
		c.pod(names[i], "echo x >>/n/starts; "+counter)
		if i%2 == 1 {
			c.killAgent()
		}
	}
	c.awaitReady(2*time.Minute, names...)
	if c.cri == "containerd" {
		c.startedOnce(names...)
		return
	}
	c.neverRestarted(names...)
}

// startedOnce checks that no container of the pods has run twice. With containerd one may have been created
// twice: it gives up a start whose caller is gone, where trivet-cri finishes it.
func (c *cluster) startedOnce(names ...string) {
	c.t.Helper()
	for _, name := range names {
		if starts := c.notes(name, "starts")(); starts != "x\n" {
			c.t.Errorf("pod %s: its container ran %d times", name, strings.Count(starts, "x"))
		}
	}
}

func TestAgentKilledWhilePodsEnd(t *testing.T) {
	c := open(t)
	var names []string
	for i := range 8 {
		names = append(names, fmt.Sprintf("p%d", i))
		c.pod(names[i], counter)
	}

	c.awaitReady(2*time.Minute, names...)
	for _, n := range names {
		c.kubectl("delete", "pod", n, "--wait=false")
		c.killAgent()
	}

	for _, n := range names {
		c.kubectl("wait", "--for=delete", "pod/"+n, "--timeout=120s")
	}
}

// killAgent kills the agent at a moment that is another one each time, and starts it again.
func (c *cluster) killAgent() {
	c.t.Helper()
	c.aMoment(300 * time.Millisecond)
	c.do("kill", c.node, c.agent)
	c.do("start", c.node, c.agent)
}

// aMoment passes, another one each time, which is shorter than the limit.
func (c *cluster) aMoment(limit time.Duration) {
	c.t.Helper()
	if err := retry.Sleep(c.t.Context(), rand.N(limit)); err != nil {
		c.t.Fatal(err)
	}
}

func TestCRIServerKilled(t *testing.T) {
	c := open(t)
	c.survives(func() { c.do("kill", c.node, c.cri) }, func() { c.do("start", c.node, c.cri) })
}

func TestMonitorKilled(t *testing.T) {
	c := open(t)
	if !c.monitor {
		t.Skip("this cluster's CRI server has no trivet-monitor")
	}
	c.survives(func() { c.do("kill", c.node, "trivet-monitor") }, func() {})
}

func TestMonitorAndCRIServerKilled(t *testing.T) {
	c := open(t)
	if !c.monitor {
		t.Skip("this cluster's CRI server has no trivet-monitor")
	}
	c.survives(func() {
		c.do("kill", c.node, c.cri)
		c.do("kill", c.node, "trivet-monitor")
	}, func() { c.do("start", c.node, c.cri) })
}

// survives checks that a container goes on while something is dead, and that no line of it is lost.
func (c *cluster) survives(kill, start func()) {
	c.t.Helper()
	c.pod("counter", counter)
	c.awaitReady(time.Minute, "counter")
	count := c.notes("counter", "count")
	kill()

	// Dead for as long as it takes to print these.
	c.awaitLines(count, 15)
	start()
	c.pod("after", counter)
	c.awaitReady(time.Minute, "after")

	lines := c.counted("counter")
	c.eventually(30*time.Second, "new lines in the log", func() error {
		if c.counted("counter") <= lines {
			return errors.New("none")
		}

		return nil
	})

	c.neverRestarted("counter")
	out := c.kubectl("exec", "counter", "--", "echo", "alive")
	if strings.TrimSpace(out) != "alive" {
		c.t.Errorf("exec says %q", out)
	}
}

package scenario

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestKilledWhilePodsAreResized kills the agent and the CRI server in turns at any moment of resizes: of
// containers that go on, of one that is restarted for it, and while one resize waits for room. The control
// groups end where the API says, and no container is restarted that should not be.
func TestKilledWhilePodsAreResized(t *testing.T) {
	c := open(t)
	all := c.allocatableCPU()
	sizes := []amount{{40, 24}, {60, 40}, {40, 40}, {80, 24}, {50, 32}}
	const restarted, waiting = "restarted", "waiting"
	going := []string{"p0", "p1", "p2", "p3"}
	pods := append([]string{restarted}, going...)

	for _, name := range going {
		c.resizable(name, sizes[0], "NotRequired")
	}
	c.resizable(restarted, sizes[0], "RestartContainer")
	small := amount{50, 16}
	c.resizable(waiting, small, "NotRequired")
	c.awaitReady(time.Minute, append(pods, waiting)...)
	c.resize(waiting, amount{all - 100, 16})
	c.awaitPending(waiting, "Deferred", "", small)

	restarts := 0
	now := sizes[0]
	for i := range kills(t) {
		next := sizes[(i+1)%len(sizes)]
		if next.memory != now.memory {
			restarts++
		}

		now = next
		c.resizeWhileKilling([]string{c.agent, c.cri}[i%2], now, pods)
		for _, name := range going {
			c.awaitResized(name, now, 0)
		}

		c.awaitResized(restarted, now, restarts)
		c.awaitPending(waiting, "Deferred", "", small)
	}

	// What is allocated is known without what the specification asks for, also when nothing happens.
	c.do("kill", c.node, c.agent)
	c.do("start", c.node, c.agent)
	c.pod("after", counter)
	c.awaitReady(time.Minute, "after")
	c.awaitPending(waiting, "Deferred", "", small)
	c.neverRestarted(append(going, waiting)...)
	for _, name := range going {
		c.counted(name)
	}
}

// resizeWhileKilling kills a daemon at a moment while pods are resized one after the other, and starts it
// again.
func (c *cluster) resizeWhileKilling(daemon string, a amount, pods []string) {
	c.t.Helper()
	begun := make(chan struct{})
	done := make(chan error, 1)
	moment := rand.IntN(len(pods))
	go func() {
		var err error
		for i, name := range pods {
			if i == moment {
				close(begun)
			}
			if err == nil {
				err = c.tryResize(name, a)
			}
		}

		done <- err
	}()

	<-begun
	c.aMoment(150 * time.Millisecond)
	c.do("kill", c.node, daemon)
	if err := <-done; err != nil {
		c.t.Fatal(err)
	}
	c.do("start", c.node, daemon)
}

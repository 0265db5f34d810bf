package daemon

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/output"
	"github.com/trivet-node/trivet/cri/monitor/pidfd"
	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// childEnded is called by the reaper with the status of the container's first process. It must not block.
func (c *container) childEnded(status unix.WaitStatus) {
	c.node.exits.Go(func() { c.end(wire.ExitOf(c.id, status)) })
}

// watch waits for the end of a process that is not a child, because the monitor that made it was killed.
func (c *container) watch(fd, pid int) {
	if pidfd.Wait(fd, c.forgotten) != nil {
		return
	}
	status, err := pidfd.Status(fd, pid)
	if err != nil {
		c.end(wire.Exit{ID: c.id, Code: wire.UnknownCode, Unknown: true})
		return
	}
	c.end(wire.ExitOf(c.id, status))
}

// end records an exit and sends it to the clients, after all output that came before it is in the log. The
// first exit counts.
func (c *container) end(exit wire.Exit) {
	exit.At = time.Now()

	// At once: systemd removes an empty group as soon as it hears of it.
	exit.OOM = c.node.oomKilled(c.record.Cgroup, exit, c.podKills)
	if c.record.SharedPID {
		c.killRest()
	}

	c.drain()

	c.mu.Lock()
	if c.record.Exit != nil {
		c.mu.Unlock()
		return
	}

	c.record.Exit = &exit
	if err := c.save(); err != nil {
		c.node.log.Error("exit is not recorded", "container", c.id, "err", err)
	}

	c.mu.Unlock()

	<-c.announced
	c.node.clients.send(wire.Message{Op: wire.OpExit, Exit: &exit})
	c.node.log.Debug("container exited", "container", c.id, "exit", exit.String())
	close(c.ended)
}

// killRest kills what a container has left running. Only the end of a PID namespace's first process ends the
// others, and they would hold the output open.
func (c *container) killRest() {
	if c.record.Cgroup == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), destroyTimeout)
	defer cancel()
	if err := c.node.cgroups.Kill(ctx, c.record.Cgroup); err != nil {
		c.node.log.Warn("processes outlive their container", "container", c.id, "err", err)
	}
}

const (
	// drainTimeout bounds the wait for output that is already written: processes that outlive the container
	// may hold its FIFOs open.
	drainTimeout = 5 * time.Second

	// drainInterval is the pause between two looks at a FIFO that is still open.
	drainInterval = 10 * time.Millisecond
)

// drain waits until all output is in the log: until it has ended or, if others still hold it open, until what
// is there now was read.
func (c *container) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	for _, s := range c.out.streams() {
		drainStream(ctx, s, c.hasTerminal)
	}
}

// hasTerminal reports whether there is a terminal, which may have more to give than the FIFO behind it.
func (c *container) hasTerminal() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fds.tty != nil
}

func drainStream(ctx context.Context, s *output.Stream, hasTerminal func() bool) {
	for {
		select {
		case <-s.Done():
			return
		case <-ctx.Done():
			return
		case <-time.After(drainInterval):
			if !hasTerminal() && s.Empty() {
				return
			}
		}
	}
}

// oomKilled reports whether the OOM killer struck in a container's group. systemd removes the group of a
// scope, and the kernel's count with it, when it hears that it is empty, which may be before this is called.
// On cgroup v2 the pod's group has the count of all its containers; it serves for one that was killed. before
// is that count from before the container was made.
func (n *node) oomKilled(group string, exit wire.Exit, before uint64) bool {
	if group == "" {
		return false
	}
	if kills, err := n.cgroups.OOMKills(group); err == nil {
		return kills > 0
	}
	wasKilled := exit.Code == 128+int(unix.SIGKILL)
	return wasKilled && n.podKills(group) > before
}

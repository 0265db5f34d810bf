package monitor

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// containers are those that the monitor has announced.
type containers struct {
	exits *queue

	// mu guards all below, and the contents of each container.
	mu   sync.Mutex
	byID map[string]*container
}

// container is what the client knows and holds of one: a second set of the descriptors without which the
// death of the monitor would cost unread output (a FIFO's bytes vanish with its last holder), the exit
// status, the terminal or an open stdin. A descriptor that there is not, is -1.
type container struct {
	status Status
	done   chan struct{} // closed when status.Exit is set

	pidfd  int
	tty    int
	stdin  int
	stdout int
	stderr int
}

func newContainers() *containers {
	return &containers{exits: newQueue(), byID: map[string]*container{}}
}

func (c *container) exited() bool { return c.status.Exit != nil }

// descriptors returns where each descriptor is kept, by its name in the protocol.
func (c *container) descriptors() map[string]*int {
	return map[string]*int{
		wire.FdPid: &c.pidfd,
		wire.FdTTY: &c.tty,
		wire.FdIn:  &c.stdin,
		wire.FdOut: &c.stdout,
		wire.FdErr: &c.stderr,
	}
}

// release closes all descriptors.
func (c *container) release() {
	for _, fd := range c.descriptors() {
		if *fd >= 0 {
			unix.Close(*fd)
		}
		*fd = -1
	}
}

// find returns a container; ErrNotFound if the monitor has not announced it.
func (cs *containers) find(id string) (*container, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.get(id)
}

// with calls f with a container while no other goroutine uses it. f must not block.
func (cs *containers) with(id string, f func(*container) error) error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c, err := cs.get(id)
	if err != nil {
		return err
	}
	return f(c)
}

// get needs cs.mu.
func (cs *containers) get(id string) (*container, error) {
	if c := cs.byID[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("container %s: %w", id, ErrNotFound)
}

func (cs *containers) list() []Status {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	all := make([]Status, 0, len(cs.byID))
	for _, c := range cs.byID {
		all = append(all, c.status)
	}
	return all
}

// announced takes what the monitor sends of a container. Descriptors that are kept are taken out of files;
// they replace those from an earlier monitor.
func (cs *containers) announced(status Status, files wire.Files) {
	exit := status.Exit
	status.Exit = nil

	cs.mu.Lock()
	c := cs.byID[status.ID]
	if c == nil {
		c = &container{
			status: status,
			done:   make(chan struct{}),
			pidfd:  -1,
			tty:    -1,
			stdin:  -1,
			stdout: -1,
			stderr: -1,
		}

		cs.byID[status.ID] = c
	}

	if !c.exited() {
		for name, kept := range c.descriptors() {
			if fd := files.Take(name); fd >= 0 {
				if *kept >= 0 {
					unix.Close(*kept)
				}

				*kept = fd
			}
		}
	}

	cs.mu.Unlock()

	// The exit goes the way of all exits, so that it is reported once.
	if exit != nil {
		cs.exited(*exit)
	}
}

// exited records an exit and puts it into the queue, the first time. The output is in the log by then, so the
// descriptors are not needed any more.
func (cs *containers) exited(e Exit) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.byID[e.ID]
	if c == nil || c.exited() {
		return
	}
	c.status.Exit = &e
	c.release()
	close(c.done)
	cs.exits.put(e)
}

// keepOnly drops containers that the monitor does not know any more, because its state directory was removed.
// One that has not exited ends with an unknown status.
func (cs *containers) keepOnly(known map[string]bool) {
	for _, status := range cs.list() {
		if !known[status.ID] {
			cs.exited(Exit{
				ID:      status.ID,
				Code:    UnknownCode,
				Unknown: true,
				At:      time.Now(),
			})
			cs.remove(status.ID)
		}
	}
}

func (cs *containers) remove(id string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c := cs.byID[id]; c != nil {
		c.release()
		delete(cs.byID, id)
	}
}

// restoreFiles sends the monitor copies of what it may have lost when it died. A monitor that has not died
// ignores them.
func (cs *containers) restoreFiles(conn *wire.Conn) error {
	cs.mu.Lock()
	defer cs.mu.Unlock()

	for id, c := range cs.byID {
		if c.exited() {
			continue
		}

		files := wire.Files{wire.FdPid: c.pidfd, wire.FdTTY: c.tty}
		if err := conn.Send(wire.Message{Op: wire.OpAdopt, ID: id}, files); err != nil {
			return err
		}
	}

	return nil
}

// close ends the queue of exits and closes all descriptors. Repeating it changes nothing.
func (cs *containers) close() {
	cs.exits.close()
	for _, status := range cs.list() {
		cs.remove(status.ID)
	}
}

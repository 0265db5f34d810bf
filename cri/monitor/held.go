package monitor

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// held is what the client knows and holds of one container: a second set of the descriptors without which the
// death of the monitor would cost unread output (a FIFO's bytes vanish with its last holder), the exit
// status, the terminal or an open stdin.
type held struct {
	status Status
	pidfd  int
	tty    int
	stdin  int
	out    int
	err    int
	done   chan struct{} // closed when status.Exit is set
}

func (h *held) exited() bool { return h.status.Exit != nil }

// release closes all descriptors.
func (h *held) release() {
	for _, fd := range []*int{&h.pidfd, &h.tty, &h.stdin, &h.out, &h.err} {
		if *fd >= 0 {
			unix.Close(*fd)
		}
		*fd = -1
	}
}

// take takes hold of a container; a second set of descriptors replaces the first one.
func (c *Client) take(status Status, files wire.Files) {
	exit := status.Exit
	status.Exit = nil
	c.mu.Lock()
	h := c.held[status.ID]
	switch {
	case h == nil:
		h = &held{
			pidfd:  -1,
			tty:    -1,
			stdin:  -1,
			out:    -1,
			err:    -1,
			status: status,
			done:   make(chan struct{}),
		}

		c.held[status.ID] = h

	case h.exited():
		c.mu.Unlock()
		return
	}

	for name, fd := range map[string]*int{
		wire.FdPid: &h.pidfd,
		wire.FdTTY: &h.tty,
		wire.FdIn:  &h.stdin,
		wire.FdOut: &h.out,
		wire.FdErr: &h.err,
	} {
		if n := files.Take(name); n >= 0 {
			if *fd >= 0 {
				unix.Close(*fd)
			}

			*fd = n
		}
	}

	c.mu.Unlock()
	if exit != nil {
		c.exited(*exit)
	}
}

// exited notes an exit and tells it, the first time. The output is in the log by then, so the descriptors can
// go.
func (c *Client) exited(e Exit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.held[e.ID]
	if h == nil || h.exited() {
		return
	}
	h.status.Exit = &e
	h.release()
	close(h.done)
	c.exits.put(e)
}

// lookup finds a container.
func (c *Client) lookup(id string) (*held, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.held[id]; h != nil {
		return h, nil
	}
	return nil, notFound(id)
}

// queue hands exits over without ever blocking who puts them in.
type queue struct {
	out    chan Exit
	mu     sync.Mutex // guards waiting
	items  []Exit
	wake   chan struct{}
	closed chan struct{}
	ended  chan struct{}
}

func newQueue() *queue {
	q := &queue{
		out:    make(chan Exit),
		wake:   make(chan struct{}, 1),
		closed: make(chan struct{}),
		ended:  make(chan struct{}),
	}
	go q.run()
	return q
}

func (q *queue) put(e Exit) {
	q.mu.Lock()
	q.items = append(q.items, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) run() {
	defer close(q.ended)
	defer close(q.out)

	for {
		q.mu.Lock()
		items := q.items
		q.items = nil
		q.mu.Unlock()
		for _, e := range items {
			select {
			case q.out <- e:
			case <-q.closed:
				return
			}
		}

		select {
		case <-q.wake:
		case <-q.closed:
			return
		}
	}
}

func (q *queue) close() {
	close(q.closed)
	<-q.ended
}

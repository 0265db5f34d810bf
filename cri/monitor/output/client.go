package output

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// client is a client that is attached. rest is the part of the last batch that its pipe did not take at once.
type client struct {
	pipe *os.File // writing end, non-blocking
	rest []byte
}

// maxClients is how many clients may be attached to one stream: each costs a descriptor of the monitor.
const maxClients = 64

// Attach adds a client; fd is the writing end of its pipe, which the Stream closes in any case.
func (st *Stream) Attach(fd int) error {
	if st == nil {
		return unix.Close(fd)
	}

	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}

	// Under the lock, a client is either added before the end of the output or sees the end.
	st.mu.Lock()
	defer st.mu.Unlock()

	if st.over {
		return unix.Close(fd)
	}

	if len(st.clients) >= maxClients {
		unix.Close(fd)
		return fmt.Errorf("%d clients are attached to it, which is the limit", maxClients)
	}

	c := &client{pipe: os.NewFile(uintptr(fd), "attached client")}
	st.clients = append(st.clients, c)
	go st.watch(c)
	return nil
}

// watch detaches a client when it closes its end. A write would fail as well, but a quiet container writes
// nothing.
func (st *Stream) watch(c *client) {
	raw, err := c.pipe.SyscallConn()
	if err != nil {
		return
	}

	// The poller wakes a reader of a writing end only for EPOLLERR: the pipe has no reader any more. An error
	// says that it was detached meanwhile.
	_ = raw.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(poll, 0)
		return err == nil && n > 0 && poll[0].Revents&unix.POLLERR != 0
	})

	st.detach(c)
}

// detach closes a client's pipe. Repeating it changes nothing.
func (st *Stream) detach(c *client) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.clients = slices.DeleteFunc(st.clients, func(other *client) bool { return other == c })
	c.pipe.Close()
}

// deliver gives a batch to all clients, as much as they take at once.
func (st *Stream) deliver(data []byte) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.clients = slices.DeleteFunc(st.clients, func(c *client) bool {
		n, err := writeNow(c.pipe, data)
		if err != nil {
			c.pipe.Close()
			return true
		}
		c.rest = slices.Clone(data[n:])
		return false
	})
}

// slowClient is how long an attached client may take none of its output before it is detached. Until then the
// container waits, as for any slow terminal.
const slowClient = 10 * time.Second

// deliverRest waits for the clients that did not take the last batch at once.
func (st *Stream) deliverRest() {
	st.mu.Lock()
	clients := slices.Clone(st.clients)
	st.mu.Unlock()

	for _, c := range clients {
		if len(c.rest) == 0 {
			continue
		}

		err := c.write(c.rest)
		c.rest = nil
		if err != nil {
			st.log.Warn("attached client is too slow and is detached", "err", err)
			st.detach(c)
		}
	}
}

func (c *client) write(data []byte) error {
	for len(data) > 0 {
		if err := c.pipe.SetWriteDeadline(time.Now().Add(slowClient)); err != nil {
			return err
		}
		n, err := c.pipe.Write(data[:min(len(data), 4096)])
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// writeNow writes what fits without waiting.
func writeNow(f *os.File, data []byte) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}

	closed := raw.Control(func(fd uintptr) { n, err = unix.Write(int(fd), data) })
	if closed != nil {
		return 0, closed
	}
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	return max(n, 0), err
}

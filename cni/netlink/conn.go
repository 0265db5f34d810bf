// Package netlink is the transport of netlink(7) for any family: it frames requests, sends many of them in
// one write and returns the kernel's answer to each. What the messages mean is the caller's: package rtnl has
// those of rtnetlink, package hostnat those of nftables and connection tracking, package listener those of
// sock_diag.
//
// A pod's network takes eight system calls this way, where one socket and one wait per request take forty.
package netlink

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Family is a netlink protocol (NETLINK_* of netlink(7)).
type Family int

// The families that a container's network needs.
const (
	Route      Family = unix.NETLINK_ROUTE
	Netfilter  Family = unix.NETLINK_NETFILTER
	SocketDiag Family = unix.NETLINK_SOCK_DIAG
)

func (f Family) String() string {
	switch f {
	case Route:
		return "rtnetlink"
	case Netfilter:
		return "netfilter"
	case SocketDiag:
		return "sock_diag"
	}
	return fmt.Sprintf("family %d", int(f))
}

// readBuffer holds a datagram of answers; the kernel fits the parts of a dump to it.
const readBuffer = 64 << 10

// Conn is a netlink socket of one network namespace, that of the thread which opened it. It is not safe for
// concurrent use.
type Conn struct {
	fd  int
	seq uint32
	buf []byte
}

// Open returns a connection in the network namespace of the calling thread. The caller closes it.
func Open(family Family) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(family))
	if err != nil {
		return nil, fmt.Errorf("open %s socket: %w", family, err)
	}

	// A kernel without one of these options gives no reason for an error, or filters less.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)

	return newConn(fd), nil
}

func newConn(fd int) *Conn { return &Conn{fd: fd, buf: make([]byte, readBuffer)} }

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Do sends the messages in one write and waits for the answers. The kernel continues after a message that it
// refuses, so each has its own result: errs[i] is nil or an *Error. err is a failure of the socket itself.
func (c *Conn) Do(messages ...*Message) (errs []error, err error) {
	return c.Ask(messages, func(int, uint16, []byte) {})
}

// Ask is Do for requests for an object each: it calls visit with the index of the message, and the type and
// body of its answer, which is valid during the call only. All answers wait in the socket's buffer before the
// first one is read, and what has no room there is lost, so the caller asks for few at once.
func (c *Conn) Ask(messages []*Message, visit visitor) (errs []error, err error) {
	if len(messages) == 0 {
		return nil, nil
	}

	first := c.seq + 1
	last := len(messages) - 1
	if err := c.sendAll(messages, last); err != nil {
		return nil, err
	}
	return c.answers(first, messages, visit, func(i int) bool { return i == last })
}

// visitor is called with what the kernel says about the message with an index.
type visitor func(i int, kind uint16, body []byte)

// sendAll sends messages in one write. What the kernel refuses it answers in any case, in order, so that only
// the last one has to be answered.
func (c *Conn) sendAll(messages []*Message, last int) error {
	var batch []byte
	for i, m := range messages {
		flags := uint16(0)
		if i == last {
			flags = unix.NLM_F_ACK
		}

		c.seq++
		batch = append(batch, m.seal(c.seq, flags)...)
	}

	if err := c.send(batch); err != nil {
		return fmt.Errorf("send netlink batch: %w", err)
	}
	return nil
}

// answers reads what the kernel says to messages, whose first one has a number, until one is answered that
// ends them. Answers come in any number of datagrams; the sequence number says which message each belongs to.
func (c *Conn) answers(
	first uint32, messages []*Message, visit visitor, isEnd func(i int) bool,
) ([]error, error) {
	errs := make([]error, len(messages))
	for done := false; !done; {
		err := c.receive(func(h header, body []byte) error {
			i := int(h.seq - first)
			switch {
			case i < 0 || i >= len(errs):
				// The rest of an answer that nobody has read.
			case h.kind == unix.NLMSG_ERROR:
				errs[i] = parseAnswer(messages[i].op, h, body)
				done = done || isEnd(i)
			default:
				visit(i, h.kind, body)
			}

			return nil
		})
		if err != nil {
			return nil, err
		}
	}

	return errs, nil
}

// Must is Do for a batch of which every message has to succeed. It returns all errors, joined.
func (c *Conn) Must(messages ...*Message) error {
	errs, err := c.Do(messages...)
	return errors.Join(append(errs, err)...)
}

// Get sends a request for one object and calls visit with the type and body of the answer. The body is valid
// during the call only.
func (c *Conn) Get(m *Message, visit func(kind uint16, body []byte)) error {
	_, err := c.request(m, unix.NLM_F_ACK, visit)
	return err
}

// ErrChanging means that a list changed each time that it was read.
var ErrChanging = errors.New("the list keeps changing while it is read")

// dumpTries bounds how often a list that changed meanwhile is read again.
const dumpTries = 5

// Dump sends a request that the kernel answers with a list, and calls visit with the type and body of each
// entry. A list that changed while it was read may lack entries that were there all the time, so it is read
// again: visit sees consistent lists only.
func (c *Conn) Dump(m *Message, visit func(kind uint16, body []byte)) error {
	type entry struct {
		kind uint16
		body []byte
	}

	for range dumpTries {
		var entries []entry
		consistent, err := c.request(m, unix.NLM_F_DUMP, func(kind uint16, body []byte) {
			entries = append(entries, entry{kind, bytes.Clone(body)})
		})
		if err != nil {
			return err
		}

		// Only now: visit must not see entries of a list that is read again.
		if consistent {
			for _, e := range entries {
				visit(e.kind, e.body)
			}

			return nil
		}
	}

	return fmt.Errorf("%s: %w", m.op, ErrChanging)
}

// Stream is Dump for a list that may be long: nothing of it is kept, visit sees each entry as it comes, and
// what changes meanwhile may be missing or come twice. The body is valid during the call only.
func (c *Conn) Stream(m *Message, visit func(kind uint16, body []byte)) error {
	_, err := c.request(m, unix.NLM_F_DUMP, visit)
	return err
}

// request sends one message and reads until the kernel says that its answer is complete. It reports false for
// consistent when the kernel says that what it listed has changed meanwhile.
func (c *Conn) request(
	m *Message, flags uint16, visit func(kind uint16, body []byte),
) (consistent bool, err error) {
	c.seq++
	if err := c.send(m.seal(c.seq, flags)); err != nil {
		return false, fmt.Errorf("%s: %w", m.op, err)
	}

	consistent = true
	for done := false; !done; {
		err := c.receive(func(h header, body []byte) error {
			// This may be the rest of an answer that nobody has read.
			if h.seq != c.seq {
				return nil
			}
			if h.flags&unix.NLM_F_DUMP_INTR != 0 {
				consistent = false
			}

			if h.kind == unix.NLMSG_ERROR || h.kind == unix.NLMSG_DONE {
				done = true
				return parseAnswer(m.op, h, body)
			}

			visit(h.kind, body)
			return nil
		})
		if err != nil {
			return false, err
		}
	}

	return consistent, nil
}

// send writes a batch. The kernel refuses one that is larger than the socket's buffer before it looks at it,
// and few are.
func (c *Conn) send(data []byte) error {
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	err := unix.Sendto(c.fd, data, 0, kernel)
	if !errors.Is(err, unix.EMSGSIZE) {
		return err
	}

	c.makeRoom(len(data))
	return unix.Sendto(c.fd, data, 0, kernel)
}

// makeRoom has the socket's buffer hold a batch; without privileges, as large as net.core.wmem_max allows.
func (c *Conn) makeRoom(size int) {
	if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, size) != nil {
		_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, size)
	}
}

// receive reads one datagram and calls visit with each of its messages.
func (c *Conn) receive(visit func(h header, body []byte) error) error {
	n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
	for errors.Is(err, unix.EINTR) {
		n, _, err = unix.Recvfrom(c.fd, c.buf, 0)
	}
	if err != nil {
		return fmt.Errorf("read netlink answer: %w", err)
	}
	return split(c.buf[:n], visit)
}

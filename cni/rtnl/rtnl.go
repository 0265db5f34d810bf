// Package rtnl speaks rtnetlink(7) in batches: many requests in one write, all answers in one or two reads.
// Building a pod's network is eight system calls this way, where one socket and one wait per request would be
// forty.
package rtnl

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// readBuffer holds the answers of a whole batch; the kernel's dumps fit their parts to it.
const readBuffer = 64 << 10

// Conn is a netlink socket of one network namespace: the one of the thread that opened it. Not for concurrent
// use.
type Conn struct {
	fd  int
	seq uint32
	buf []byte
}

// Open makes a socket in the network namespace of the calling thread.
func Open() (*Conn, error) { return open(unix.NETLINK_ROUTE, "rtnetlink") }

// OpenNetfilter makes a socket on which nftables can be asked by Get and Dump; the messages are the caller's.
func OpenNetfilter() (*Conn, error) { return open(unix.NETLINK_NETFILTER, "netfilter") }

// OpenSocketDiag makes a socket on which the kernel can be asked for sockets by Dump; the messages are the
// caller's.
func OpenSocketDiag() (*Conn, error) { return open(unix.NETLINK_SOCK_DIAG, "sock_diag") }

func open(protocol int, name string) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open %s socket: %w", name, err)
	}
	// Older kernels have neither option; they only lack the explanation, or filter less.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return &Conn{fd: fd, buf: make([]byte, readBuffer)}, nil
}

// Close frees the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Error is a request that the kernel refused.
type Error struct {
	What   string // "create veth vethab12"
	Errno  unix.Errno
	Reason string // the kernel's extended acknowledgement, if it gave one
}

func (e *Error) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("%s: %s (%s)", e.What, e.Errno, e.Reason)
	}
	return fmt.Sprintf("%s: %s", e.What, e.Errno)
}

func (e *Error) Unwrap() error { return e.Errno }

// Do sends the messages in one write and waits for all answers. The kernel goes on past a refused message, so
// the answer to each is returned: errs[i] is nil or an *Error. err is a failure of the socket itself.
func (c *Conn) Do(messages ...*Message) (errs []error, err error) {
	first := c.seq + 1
	var batch []byte
	for _, m := range messages {
		c.seq++
		batch = append(batch, m.seal(c.seq, unix.NLM_F_ACK)...)
	}

	if err := unix.Sendto(c.fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send netlink batch: %w", err)
	}

	errs = make([]error, len(messages))
	for left := len(messages); left > 0; {
		err := c.receive(func(h unix.NlMsghdr, body []byte) error {
			i := int(h.Seq - first)
			if h.Type != unix.NLMSG_ERROR || i < 0 || i >= len(errs) {
				return nil
			}

			errs[i] = answer(messages[i].what, h, body)
			left--
			return nil
		})
		if err != nil {
			return nil, err
		}
	}

	return errs, nil
}

// Must is Do for batches of which every message has to succeed.
func (c *Conn) Must(messages ...*Message) error {
	errs, err := c.Do(messages...)
	return errors.Join(append(errs, err)...)
}

// ErrChanging means that a list changed while it was read, again and again.
var ErrChanging = errors.New("the list keeps changing while it is read")

// dumpTries bounds how often a list that changed meanwhile is read again.
const dumpTries = 5

// Dump sends a request that the kernel answers with many messages and calls visit with the body of each
// (family header and attributes). A list that changed while it was read may lack entries which were there
// throughout, so visit sees whole ones only.
func (c *Conn) Dump(m *Message, visit func(kind uint16, body []byte)) error {
	type entry struct {
		kind uint16
		body []byte
	}

	for range dumpTries {
		var entries []entry
		whole, err := c.ask(
			m,
			unix.NLM_F_DUMP,
			func(kind uint16, body []byte) { entries = append(entries, entry{kind, bytes.Clone(body)}) },
		)
		if err != nil {
			return err
		}

		if whole {
			for _, e := range entries {
				visit(e.kind, e.body)
			}

			return nil
		}
	}

	return fmt.Errorf("%s: %w", m.what, ErrChanging)
}

// Get sends a request for one object and calls visit with its body.
func (c *Conn) Get(m *Message, visit func(kind uint16, body []byte)) error {
	_, err := c.ask(m, unix.NLM_F_ACK, visit)
	return err
}

// ask returns false for whole when the kernel says that what it listed changed meanwhile.
func (c *Conn) ask(m *Message, flags uint16, visit func(kind uint16, body []byte)) (whole bool, err error) {
	c.seq++
	if err := unix.Sendto(c.fd, m.seal(c.seq, flags), 0, &unix.SockaddrNetlink{
		Family: unix.AF_NETLINK,
	}); err != nil {
		return false, fmt.Errorf("%s: %w", m.what, err)
	}

	whole = true
	for done := false; !done; {
		err := c.receive(func(h unix.NlMsghdr, body []byte) error {
			if h.Seq != c.seq {
				return nil
			}

			whole = whole && h.Flags&unix.NLM_F_DUMP_INTR == 0
			if h.Type == unix.NLMSG_ERROR || h.Type == unix.NLMSG_DONE {
				done = true
				return answer(m.what, h, body)
			}

			visit(h.Type, body)
			return nil
		})
		if err != nil {
			return false, err
		}
	}

	return whole, nil
}

// receive reads one datagram and hands out its messages.
func (c *Conn) receive(visit func(h unix.NlMsghdr, body []byte) error) error {
	n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
	for errors.Is(err, unix.EINTR) {
		n, _, err = unix.Recvfrom(c.fd, c.buf, 0)
	}
	if err != nil {
		return fmt.Errorf("read netlink answer: %w", err)
	}
	return split(c.buf[:n], visit)
}

// split calls visit with each message of a datagram.
func split(data []byte, visit func(h unix.NlMsghdr, body []byte) error) error {
	for len(data) >= unix.NLMSG_HDRLEN {
		h := unix.NlMsghdr{
			Len:   native.Uint32(data),
			Type:  native.Uint16(data[4:]),
			Flags: native.Uint16(data[6:]),
			Seq:   native.Uint32(data[8:]),
		}
		if int(h.Len) < unix.NLMSG_HDRLEN || int(h.Len) > len(data) {
			return fmt.Errorf("read netlink answer: message of %d bytes in %d", h.Len, len(data))
		}
		if err := visit(h, data[unix.NLMSG_HDRLEN:h.Len]); err != nil {
			return err
		}

		data = data[min(len(data), int(h.Len+3)&^3):]
	}

	return nil
}

// answer decodes a struct nlmsgerr with its extended acknowledgement, or what ends a list: an errno, and the
// acknowledgement at once.
func answer(what string, h unix.NlMsghdr, body []byte) error {
	if len(body) < 4 {
		return &Error{What: what, Errno: unix.EBADMSG}
	}

	errno := -int32(native.Uint32(body))
	if errno == 0 {
		return nil
	}

	e := &Error{What: what, Errno: unix.Errno(errno)}

	// errno and the header of the request (NETLINK_CAP_ACK leaves out its body)
	echoed := 4 + unix.NLMSG_HDRLEN
	if h.Type == unix.NLMSG_DONE {
		echoed = 4
	}

	if h.Flags&unix.NLM_F_ACK_TLVS != 0 && len(body) > echoed {
		rest := body[echoed:]
		if h.Type == unix.NLMSG_ERROR && h.Flags&unix.NLM_F_CAPPED == 0 {
			size := int(native.Uint32(body[4:])) - unix.NLMSG_HDRLEN
			rest = rest[max(0, min(len(rest), (size+3)&^3)):]
		}

		Attributes(rest, func(kind uint16, value []byte) {
			if kind == unix.NLMSGERR_ATTR_MSG {
				e.Reason = text(value)
			}
		})
	}

	return e
}

func text(zeroTerminated []byte) string {
	for i, b := range zeroTerminated {
		if b == 0 {
			return string(zeroTerminated[:i])
		}
	}
	return string(zeroTerminated)
}

// Gone reports whether err means that the object is not there: deleting it again is success.
func Gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) ||
		errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, os.ErrNotExist)
}

// Exists reports whether err means that the object is there already.
func Exists(err error) bool { return errors.Is(err, unix.EEXIST) }

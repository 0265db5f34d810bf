package wire

import (
	"encoding/json"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// Bounds of a packet in bytes, and of the descriptors beside it.
const (
	maxMessage = 64 << 10
	maxFds     = 8
)

// Conn is one end of a connection. Send may be called from many goroutines, Receive from one.
type Conn struct {
	sock *net.UnixConn

	// mu is held by Send: one packet at once.
	mu  sync.Mutex
	buf []byte
	oob []byte
}

// newConn wraps a SOCK_SEQPACKET connection.
func newConn(sock *net.UnixConn) *Conn {
	return &Conn{sock: sock, oob: make([]byte, unix.CmsgSpace(maxFds*4))}
}

// Dial connects to the monitor's socket.
func Dial(path string) (*Conn, error) {
	sock, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	return newConn(sock), nil
}

// Close ends the connection; a Receive that waits returns an error.
func (c *Conn) Close() error { return c.sock.Close() }

// Files are descriptors by their names. The receiver owns them.
type Files map[string]int

// Close closes the descriptors that have not been taken.
func (f Files) Close() {
	for name, fd := range f {
		if fd >= 0 {
			unix.Close(fd)
		}
		delete(f, name)
	}
}

// Take removes a descriptor and returns it; -1 when it is not there.
func (f Files) Take(name string) int {
	fd, ok := f[name]
	if !ok {
		return -1
	}
	delete(f, name)
	return fd
}

// Send sends m with copies of files; negative descriptors are left out.
func (c *Conn) Send(m Message, files Files) error {
	m.Fds = nil
	var fds []int
	for name, fd := range files {
		if fd >= 0 {
			m.Fds = append(m.Fds, name)
			fds = append(fds, fd)
		}
	}

	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s message: %w", m.Op, err)
	}
	if len(data) > maxMessage || len(fds) > maxFds {
		return fmt.Errorf("%s message of %d bytes and %d descriptors is too large", m.Op, len(data), len(fds))
	}

	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	_, _, err = c.sock.WriteMsgUnix(data, oob, nil)
	return err
}

// Receive waits for the next message. The caller owns the files.
func (c *Conn) Receive() (Message, Files, error) {
	if c.buf == nil {
		c.buf = make([]byte, maxMessage)
	}

	n, oobn, flags, _, err := c.sock.ReadMsgUnix(c.buf, c.oob)
	if err != nil {
		return Message{}, nil, err
	}

	// Descriptors that came are open, whatever is wrong with the message.
	fds, err := parseRights(c.oob[:oobn])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = fmt.Errorf("message of the peer was cut short (flags %#x)", flags)
	}

	var m Message
	if err == nil {
		m, err = decode(c.buf[:n], len(fds))
	}

	if err != nil {
		for _, fd := range fds {
			unix.Close(fd)
		}

		return Message{}, nil, err
	}

	files := make(Files, len(fds))
	for i, name := range m.Fds {
		files[name] = fds[i]
	}

	return m, files, nil
}

// decode parses one packet that came with that number of descriptors.
func decode(data []byte, descriptors int) (Message, error) {
	var m Message
	if err := json.Unmarshal(data, &m); err != nil {
		return Message{}, fmt.Errorf("decode message: %w", err)
	}
	if m.Op == "" {
		return Message{}, fmt.Errorf("message without an op")
	}

	if len(m.Fds) != descriptors {
		return Message{}, fmt.Errorf("%s message names %d descriptors and brings %d",
			m.Op, len(m.Fds), descriptors)
	}

	seen := make(map[string]bool, len(m.Fds))
	for _, name := range m.Fds {
		if seen[name] {
			return Message{}, fmt.Errorf("%s message names descriptor %q twice", m.Op, name)
		}

		seen[name] = true
	}

	return m, nil
}

// parseRights returns the descriptors, close-on-exec (net sets MSG_CMSG_CLOEXEC), of control messages.
func parseRights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}

	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}

	var fds []int
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}

	return fds, nil
}

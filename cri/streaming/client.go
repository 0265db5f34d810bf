package streaming

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// watchedListener accepts connections whose context ends when the client is gone. net/http ends it until a
// connection is hijacked; from then on only the stream's library reads from it.
type watchedListener struct{ net.Listener }

// Accept returns a watchedConn.
func (l watchedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{Conn: conn}, nil
}

// watchedConn is a connection that knows the context that ends with it.
type watchedConn struct {
	net.Conn

	// cancel ends the context. connContext sets it before anybody reads.
	cancel context.CancelFunc

	mu sync.Mutex // guards all below

	// copy is the descriptor by which awaitHangUp watches; nil if it does not.
	copy   *os.File
	closed bool
}

// connKey is the key of a request's watchedConn in its context.
type connKey struct{}

// connContext returns the context of a connection; it is http.Server.ConnContext.
func connContext(ctx context.Context, conn net.Conn) context.Context {
	c := conn.(*watchedConn)
	ctx, c.cancel = context.WithCancel(ctx)
	return context.WithValue(ctx, connKey{}, c)
}

// watch ends the request's context when its client has closed the connection. A Read would show it, too, but
// only after all that the client sent before, which may be never if a process does not read its stdin. It
// takes a descriptor, so only a connection that has shown a token is watched.
func watch(r *http.Request) {
	c, ok := r.Context().Value(connKey{}).(*watchedConn)
	if !ok {
		return
	}

	tcp, ok := c.Conn.(*net.TCPConn)
	if !ok {
		return
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	if c.closed || c.copy != nil {
		return
	}

	// A copy, as the poller's events for the connection itself go to those who read from it. Without one, the
	// end is seen when somebody reads.
	f, err := tcp.File()
	if err != nil {
		return
	}

	c.copy = f
	go c.awaitHangUp(f)
}

// awaitHangUp ends the context when the other side has closed the connection.
func (c *watchedConn) awaitHangUp(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}

	// It fails when this side closes the connection, which ends the context as well.
	const hungUp = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR
	_ = raw.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(poll, 0)
		return err == nil && n > 0 && poll[0].Revents&hungUp != 0
	})
	c.cancel()
}

// Read also ends the context at an error. A deadline is not one: by it, net/http takes its own reader away.
func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.cancel()
	}
	return n, err
}

// Close closes the connection and ends the context, which does not exist yet if the listener closes it.
func (c *watchedConn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.copy != nil {
		c.copy.Close()
	}
	c.mu.Unlock()
	if c.cancel != nil {
		c.cancel()
	}
	return c.Conn.Close()
}

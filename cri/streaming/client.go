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

// watchedListener gives connections whose context ends when the client is gone. net/http sees to that until a
// connection is hijacked, and then the stream's library alone reads from it.
type watchedListener struct{ net.Listener }

func (l watchedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{Conn: conn}, nil
}

type watchedConn struct {
	net.Conn
	gone context.CancelFunc // set by connContext, before anybody reads

	mu     sync.Mutex // guards copy and closed
	copy   *os.File   // by which awaitHangUp watches; nil: it does not
	closed bool
}

// connKey is the key of a request's watchedConn in its context.
type connKey struct{}

// connContext is http.Server.ConnContext.
func connContext(ctx context.Context, conn net.Conn) context.Context {
	c := conn.(*watchedConn)
	ctx, c.gone = context.WithCancel(ctx)
	return context.WithValue(ctx, connKey{}, c)
}

// watch ends the request's context when its client has closed the connection. A Read would tell, too, but
// comes to that only after all that the client sent before, which a process that does not read its stdin
// holds up forever. It takes a descriptor, so only a connection that has shown a token is watched.
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

	// A copy, as the poller's events for the connection itself go to whoever reads from it.
	f, err := tcp.File()
	if err != nil {
		// its end is seen when somebody reads
		return
	}

	c.copy = f
	go c.awaitHangUp(f)
}

func (c *watchedConn) awaitHangUp(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	const hungUp = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR
	raw.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(poll, 0)
		return err == nil && n > 0 && poll[0].Revents&hungUp != 0
	})
	c.gone()
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)

	// by a deadline net/http takes its own reader away
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.gone()
	}
	return n, err
}

// Close ends the connection, also where the context was not made yet (a listener that is closed).
func (c *watchedConn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.copy != nil {
		c.copy.Close()
	}
	c.mu.Unlock()
	if c.gone != nil {
		c.gone()
	}
	return c.Conn.Close()
}

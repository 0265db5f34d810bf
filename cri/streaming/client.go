package streaming

import (
	"context"
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// watchedListener gives connections whose context ends when the client is gone. net/http sees to that until a connection is hijacked, and then the
// stream's library alone reads from it.
type watchedListener struct{ net.Listener }

func (l watchedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &watchedConn{Conn: conn}
	// A copy, as the poller's events for the connection itself go to whoever reads it.
	if tcp, ok := conn.(*net.TCPConn); ok {
		c.watched, _ = tcp.File() // without it, the client's end is seen when somebody reads
	}
	return c, nil
}

type watchedConn struct {
	net.Conn
	watched *os.File           // nil: not watched
	gone    context.CancelFunc // set by watch, before anybody reads
}

// watch is http.Server.ConnContext.
func watch(ctx context.Context, conn net.Conn) context.Context {
	c := conn.(*watchedConn)
	ctx, c.gone = context.WithCancel(ctx)
	if c.watched != nil {
		go c.awaitHangUp()
	}
	return ctx
}

// awaitHangUp ends the context when the client has closed the connection. A Read would tell, too, but comes
// to that only after all that the client sent before, which a process that does not read its stdin holds up
// for ever.
func (c *watchedConn) awaitHangUp() {
	raw, err := c.watched.SyscallConn()
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
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) { // by a deadline net/http takes its own reader away
		c.gone()
	}
	return n, err
}

// Close ends the connection, also where the context was not made yet (a listener that is closed).
func (c *watchedConn) Close() error {
	if c.watched != nil {
		c.watched.Close()
	}
	if c.gone != nil {
		c.gone()
	}
	return c.Conn.Close()
}

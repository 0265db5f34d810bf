package streaming

import (
	"context"
	"errors"
	"net"
	"os"
)

// watchedListener gives connections whose context ends when the client is gone. net/http sees to that until a connection is hijacked, and then the
// stream's library alone reads from it.
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
	gone context.CancelFunc // set by watch, before anybody reads
}

// watch is http.Server.ConnContext.
func watch(ctx context.Context, conn net.Conn) context.Context {
	ctx, conn.(*watchedConn).gone = context.WithCancel(ctx)
	return ctx
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) { // by a deadline net/http takes its own reader away
		c.gone()
	}
	return n, err
}

func (c *watchedConn) Close() error {
	c.gone()
	return c.Conn.Close()
}

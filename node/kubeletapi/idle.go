package kubeletapi

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"time"
)

// idleWriter is a response whose connection, once it is handed over to a stream, is closed when nothing has
// passed for a while in either direction.
type idleWriter struct {
	http.ResponseWriter
	idle time.Duration
}

// Unwrap lets http.ResponseController find what the response can do beside Hijack.
func (w *idleWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack hands the connection over.
func (w *idleWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffer, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	return &idleConn{Conn: conn, idle: w.idle}, buffer, nil
}

type idleConn struct {
	net.Conn
	idle time.Duration

	mu    sync.Mutex // guards fixed, and that nothing puts off an end that is
	fixed bool
}

// Read puts the end off, also that of a Write that waits.
func (c *idleConn) Read(p []byte) (int, error) {
	if err := c.putOff(); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write puts the end off, also that of a Read that waits.
func (c *idleConn) Write(p []byte) (int, error) {
	if err := c.putOff(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *idleConn) putOff() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fixed {
		return nil
	}
	return c.SetDeadline(time.Now().Add(c.idle))
}

// SetReadDeadline fixes the end of reading: traffic does not put it off any more.
func (c *idleConn) SetReadDeadline(end time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fixed = true
	return c.Conn.SetReadDeadline(end)
}

// CloseWrite ends one direction, as the proxy does when the other side has ended it.
func (c *idleConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

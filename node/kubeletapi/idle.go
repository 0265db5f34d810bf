package kubeletapi

import (
	"bufio"
	"net"
	"net/http"
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
	return &idleConn{conn, w.idle}, buffer, nil
}

type idleConn struct {
	net.Conn
	idle time.Duration
}

// Read puts the end off, also that of a Write that waits.
func (c *idleConn) Read(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write puts the end off, also that of a Read that waits.
func (c *idleConn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// CloseWrite ends one direction, as the proxy does when the other side has ended it.
func (c *idleConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

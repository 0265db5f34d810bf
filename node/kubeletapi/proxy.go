package kubeletapi

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// passThrough forwards the request to the URL that the runtime gave for a stream, and its connection too once
// that is upgraded.
func (s *Server) passThrough(w http.ResponseWriter, r *http.Request, target string) error {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		return fmt.Errorf("the runtime gave the stream URL %q", target)
	}

	if s.cfg.StreamIdleTime > 0 {
		w = &idleWriter{w, s.cfg.StreamIdleTime}
	}

	joined := &joinedWriter{ResponseWriter: w}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			// The Host header stays: WebSocket servers compare it with Origin.
			p.Out.URL = u
			// The caller's token is for the node, and the runtime must not see it.
			p.Out.Header.Del("Authorization")
		},
		ModifyResponse: joined.join,
		FlushInterval:  -1,
		ErrorLog:       slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "connect to the container runtime: "+err.Error(), http.StatusBadGateway)
		},
	}

	proxy.ServeHTTP(joined, r)
	return nil
}

// closeTime is how long a caller has to close its connection when the runtime has ended a stream.
const closeTime = 2 * time.Second

// joinedWriter is a response whose connection, once it is a stream, ends together with the one to the
// runtime. The protocols on top mark the end of input and output themselves, so that a connection which
// either side closes is over. What the stream holds must not wait for a command that goes on, or for a caller
// that does not close.
type joinedWriter struct {
	http.ResponseWriter
	caller net.Conn // nil until the connection is a stream
}

// Unwrap lets http.ResponseController find what the response can do besides Hijack.
func (w *joinedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack takes the connection over and keeps it.
func (w *joinedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffer, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.caller = conn
	return conn, buffer, err
}

// join hides from the proxy that the connection to the runtime can be closed in one direction alone.
func (w *joinedWriter) join(r *http.Response) error {
	if conn, ok := r.Body.(io.ReadWriteCloser); ok && r.StatusCode == http.StatusSwitchingProtocols {
		r.Body = &runtimeConn{conn, w}
	}
	return nil
}

// runtimeConn is a stream's connection to the runtime.
type runtimeConn struct {
	io.ReadWriteCloser
	writer *joinedWriter
}

// Read gives the caller some time to read the rest when the runtime has ended the stream: a connection that
// is closed with input unread is reset, and what was sent last is lost.
func (c *runtimeConn) Read(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(p)
	if err != nil {
		_ = c.writer.caller.SetReadDeadline(time.Now().Add(closeTime))
	}
	return n, err
}

// idleWriter is a response whose connection, once it is a stream, is closed when nothing has passed for a
// while in either direction.
type idleWriter struct {
	http.ResponseWriter
	idle time.Duration
}

// Unwrap lets http.ResponseController find what the response can do besides Hijack.
func (w *idleWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack takes the connection over.
func (w *idleWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffer, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	return &idleConn{Conn: conn, idle: w.idle}, buffer, nil
}

// idleConn is a connection whose deadline every Read and Write extends.
type idleConn struct {
	net.Conn
	idle time.Duration

	// mu guards fixed, and makes sure that a fixed deadline is not extended.
	mu    sync.Mutex
	fixed bool
}

// Read extends the deadline, also that of a Write that waits.
func (c *idleConn) Read(p []byte) (int, error) {
	if err := c.extend(); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write extends the deadline, also that of a Read that waits.
func (c *idleConn) Write(p []byte) (int, error) {
	if err := c.extend(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *idleConn) extend() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fixed {
		return nil
	}
	return c.SetDeadline(time.Now().Add(c.idle))
}

// SetReadDeadline fixes the deadline of reads: traffic does not extend it any more.
func (c *idleConn) SetReadDeadline(end time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fixed = true
	return c.Conn.SetReadDeadline(end)
}

// CloseWrite closes one direction, as the proxy does when the other side has.
func (c *idleConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

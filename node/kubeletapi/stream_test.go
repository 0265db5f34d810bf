package kubeletapi

import (
	"bufio"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// streamTo passes a stream through to a runtime whose side of the connection runtime has, and returns the
// caller's side of it. served is closed when the server has freed all that the stream opened.
func streamTo(t *testing.T, runtime func(net.Conn)) (caller net.Conn, served <-chan struct{}) {
	t.Helper()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}

		defer conn.Close()

		const switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n"
		if _, err := io.WriteString(conn, switched); err != nil {
			t.Error(err)
		}

		runtime(conn)
	}))

	t.Cleanup(backend.Close)

	ended := make(chan struct{})
	s := New(Config{Log: slog.New(slog.DiscardHandler), StreamIdleTime: time.Hour})
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)

		s.passThrough(w, r, backend.URL+"/exec/token")
	}))

	t.Cleanup(front.Close)

	caller, err := tls.Dial("tcp", front.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { caller.Close() })
	const upgrade = "POST /exec HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n"
	if _, err := io.WriteString(caller, upgrade); err != nil {
		t.Fatal(err)
	}

	r, err := http.ReadResponse(bufio.NewReader(caller), nil)
	if err != nil || r.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", r, err)
	}

	return caller, ended
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s still goes on", what)
	}
}

// A command that goes on keeps the runtime's side open; the caller is gone.
func TestStreamEndsWithItsCaller(t *testing.T) {
	commandEnds, closed := make(chan struct{}), make(chan struct{})
	defer close(commandEnds)
	caller, served := streamTo(t, func(conn net.Conn) {
		_, _ = io.Copy(io.Discard, conn)
		close(closed)
		<-commandEnds
	})
	caller.Close()
	await(t, "the runtime's connection", closed)
	await(t, "the stream", served)
}

// A caller that never closes its side keeps nothing, and what was written last reaches it.
func TestStreamEndsWithTheRuntime(t *testing.T) {
	caller, served := streamTo(t, func(conn net.Conn) { _, _ = io.WriteString(conn, "bye") })
	if _, err := io.WriteString(caller, "input that nobody reads"); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 3)
	if _, err := io.ReadFull(caller, text); err != nil || string(text) != "bye" {
		t.Errorf("%q, %v", text, err)
	}
	await(t, "the stream", served)
}

// Nor does one that goes on sending.
func TestStreamEndsWithTheRuntimeWhateverItsCallerSends(t *testing.T) {
	server, caller := net.Pipe()
	defer server.Close()
	defer caller.Close()

	conn := &idleConn{Conn: server, idle: time.Hour}
	go func() {
		for {
			if _, err := caller.Write([]byte("more")); err != nil {
				return
			}
		}
	}()

	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}

	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, conn)
		close(ended)
	}()

	await(t, "reading", ended)
}

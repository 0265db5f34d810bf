package kubeletapi

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"testing/synctest"
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
	case <-time.After(time.Minute):
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

func TestTrafficKeepsAStreamOpenAndSilenceDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, caller := net.Pipe()
		defer caller.Close()

		conn := &idleConn{Conn: server, idle: time.Minute}
		defer conn.Close()

		// Each direction keeps the other one open as well.
		ended := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, conn)
			ended <- err
		}()
		go func() { _, _ = io.Copy(io.Discard, caller) }()

		for i := range 10 {
			time.Sleep(50 * time.Second)
			if _, err := []io.Writer{caller, conn}[i%2].Write([]byte("x")); err != nil {
				t.Fatalf("write %d: %v", i, err)
			}
			synctest.Wait()
			if len(ended) > 0 {
				t.Fatalf("closed after write %d", i)
			}
		}

		began := time.Now()
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("after %v of silence: %v", time.Since(began), err)
		}
	})
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

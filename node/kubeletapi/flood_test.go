package kubeletapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// speakHTTP2 opens a connection to an endpoint with this guard. Whatever comes back is read and dropped;
// ended is closed when the server has closed the connection.
func speakHTTP2(t *testing.T, guard http.HandlerFunc) (framer *http2.Framer, ended <-chan struct{}) {
	t.Helper()

	// for its certificate
	certs := httptest.NewTLSServer(nil)
	certs.Close()
	server := New(Config{
		Guard: func(http.Handler) http.Handler { return guard },
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &certs.TLS.Certificates[0], nil
		},
		Log: slog.New(slog.DiscardHandler),
	})

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})

	conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{
		InsecureSkipVerify: true,
		NextProtos:         []string{http2.NextProtoTLS},
	})
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { conn.Close() })
	if got := conn.ConnectionState().NegotiatedProtocol; got != http2.NextProtoTLS {
		t.Fatalf("the endpoint speaks %q", got)
	}

	closed := make(chan struct{})
	go func() {
		defer close(closed)

		_, _ = io.Copy(io.Discard, conn)
	}()

	framer = http2.NewFramer(conn, conn)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}

	return framer, closed
}

// request is the header of a GET.
func request(t *testing.T) []byte {
	t.Helper()
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for name, value := range map[string]string{
		":method":    "GET",
		":scheme":    "https",
		":authority": "node",
		":path":      "/healthz",
	} {
		if err := e.WriteField(hpack.HeaderField{Name: name, Value: value}); err != nil {
			t.Fatal(err)
		}
	}

	return block.Bytes()
}

func awaitEnd(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the connection is still open")
	}
}

// A header that never ends costs its sender the connection, before anybody has asked who the sender is
// (CVE-2023-45288).
func TestHeaderWithoutEndIsCutOff(t *testing.T) {
	framer, ended := speakHTTP2(t, func(http.ResponseWriter, *http.Request) {
		t.Error("the request was served")
	})
	err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: request(t)})
	if err != nil {
		t.Fatal(err)
	}

	var field bytes.Buffer
	if err := hpack.NewEncoder(&field).WriteField(hpack.HeaderField{
		Name:      "x",
		Value:     string(bytes.Repeat([]byte{0xff}, 16<<10-64)),
		Sensitive: true,
	}); err != nil {
		t.Fatal(err)
	}

	const bound = 64 << 20
	sent := 0
	for ; err == nil && sent < bound; sent += field.Len() {
		err = framer.WriteContinuation(1, false, field.Bytes())
	}

	if err == nil {
		t.Errorf("%d bytes of one header were taken", sent)
	}

	awaitEnd(t, ended)
}

// Requests that are cancelled at once do not pile up, however many there are (CVE-2023-44487).
func TestRequestsThatAreTakenBackDoNotPileUp(t *testing.T) {
	var running atomic.Int32
	release := make(chan struct{})
	framer, ended := speakHTTP2(t, func(http.ResponseWriter, *http.Request) {
		running.Add(1)
		<-release
	})
	defer close(release)

	block := request(t)
	var err error
	for stream := uint32(1); err == nil && stream < 100_000; stream += 2 {
		err = errors.Join(
			framer.WriteHeaders(http2.HeadersFrameParam{
				StreamID:      stream,
				BlockFragment: block,
				EndStream:     true,
				EndHeaders:    true,
			}),
			framer.WriteRSTStream(stream, http2.ErrCodeCancel))
	}

	// the last of them may still be on their way when the server has given up
	awaitEnd(t, ended)
	if n := running.Load(); n == 0 || n > 250 {
		t.Errorf("%d requests are served at once, want at most 250", n)
	}
}
